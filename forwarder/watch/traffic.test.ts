import { expect, test } from "vitest";
import { expose } from "../../sdk/metrics/expose.ts";
import { meters } from "../../sdk/metrics/meters.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import type { EndStats } from "../dataplane.ts";
import { trackTraffic } from "./traffic.ts";

const end = (rxBytes: number): EndStats => ({
  side: "client",
  interfaceName: "nsm-1",
  rxBytes,
  txBytes: 2,
  rxPackets: 3,
  txPackets: 4,
  rxErrors: 0,
  txErrors: 0,
  rxDropped: 5,
  txDropped: 6,
});
const UUID = "0a1b2c3d-0000-4000-8000-00000000000f";

async function scrape(stats: ReadonlyMap<string, readonly EndStats[]>) {
  const asked: unknown[] = [];
  const clock = createFakeClock();
  const read = (...ids: unknown[]) => {
    asked.push(ids);
    return Promise.resolve(stats);
  };
  using tracking = trackTraffic({ stats: read }, clock);
  void tracking;
  const { wireBytes, wirePackets, wireDropped } = meters;
  using exposition = await expose([wireBytes, wirePackets, wireDropped], {
    role: "forwarder",
    onFault: (_, error) => expect.unreachable(String(error)),
  });
  const pages = [await exposition.page()];
  await clock.advance(1000);
  pages.push(await exposition.page());
  return { asked, lines: (pages[1] ?? "").split("\n").filter((line) => line.startsWith("nsm")) };
}

test("each end of a wire has its bytes, packets and drops, by one reading a scrape", async () => {
  const { asked, lines } = await scrape(new Map([[UUID, [end(1)]]]));
  expect(asked).toEqual([[], []]);
  expect(lines.map((line) => line.replace(/\{.*direction="(\w+)".*\}/, " $1"))).toEqual([
    "nsm_wire_bytes_total received 1",
    "nsm_wire_bytes_total sent 2",
    "nsm_wire_packets_total received 3",
    "nsm_wire_packets_total sent 4",
    "nsm_wire_dropped_packets_total received 5",
    "nsm_wire_dropped_packets_total sent 6",
  ]);
  expect(lines[0]).toContain(`wire="${UUID}"`);
  expect(lines[0]).toContain('side="client"');
});

test("at most 1000 wires have series, and an id that a path brought along is not repeated", async () => {
  const many = Array.from({ length: 1200 }, (_, i) => [`evil"} ${i}`, [end(i)]] as const);
  const { lines } = await scrape(new Map(many));
  expect(lines).toHaveLength(3 * 2 * 1000);
  expect(lines.join("\n")).not.toContain("evil");
  expect(lines[0]).toMatch(/wire="[0-9a-f]{16}"/);
});
