import { expect, test } from "vitest";
import { expose } from "../../sdk/metrics/expose.ts";
import { meters } from "../../sdk/metrics/meters.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { trackRules } from "./metrics.ts";

test("each rule has its packets and bytes, by one call of nft a scrape", async () => {
  let calls = 0;
  const counters = () => {
    calls++;
    return Promise.resolve([
      { rule: "web", packets: 3, bytes: 252 },
      { rule: "default", packets: 1, bytes: 84 },
    ]);
  };
  using tracking = trackRules({ counters }, createFakeClock());
  void tracking;
  using exposition = await expose([meters.firewallPackets, meters.firewallBytes], {
    role: "nse firewall",
    onFault: (_, error) => expect.unreachable(String(error)),
  });
  const page = await exposition.page();
  expect(page.split("\n").filter((line) => line.startsWith("nsm_"))).toEqual([
    expect.stringMatching(/^nsm_firewall_packets_total\{.*rule="web".*\} 3$/),
    expect.stringMatching(/^nsm_firewall_packets_total\{.*rule="default".*\} 1$/),
    expect.stringMatching(/^nsm_firewall_bytes_total\{.*rule="web".*\} 252$/),
    expect.stringMatching(/^nsm_firewall_bytes_total\{.*rule="default".*\} 84$/),
  ]);
  expect(calls).toBe(1);
});
