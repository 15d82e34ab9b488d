/** Two linked clusters of which one is behind a gateway that lets in only what answers: the link and wires of both directions. */
import { execFileSync } from "node:child_process";
import { expect, test, vi } from "vitest";
import { LINKING, linksOf, runNsmIn, tokenOf } from "../support/link-commands.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, pingFrom } from "../support/wires.ts";

const mesh = useMesh({
  ...LINKING,
  nodes: 1,
  endpoints: [
    { name: "hidden", node: "node3", service: "hidden", prefixes: "172.16.7.0/24" },
    { name: "open", node: "node1", service: "open", prefixes: "172.16.8.0/24" },
  ],
  clients: [
    { name: "asks-hidden", node: "node1", services: "kernel://hidden@west/nsm-1", started: false },
    { name: "asks-open", node: "node3", services: "kernel://open@east/nsm-1", started: false },
  ],
});

const PATIENCE = { timeout: 60_000, interval: 200 };

const nft = (...words: readonly string[]) =>
  execFileSync("nsenter", [`--net=/run/netns/${mesh.namespace("node3").name}`, "--", "nft", ...words]);

/** West's node sends from other ports, as through a gateway that masquerades, and gets only what answers that. */
function hide(): void {
  nft("add table ip gate");
  nft("add chain ip gate after { type nat hook postrouting priority 100 ; }");
  nft("add rule ip gate after oifname underlay meta l4proto udp masquerade to :30000-40000");
  nft("add chain ip gate before { type filter hook input priority 0 ; }");
  nft("add rule ip gate before iifname underlay ct state new drop");
}

test("wires of both directions come up and carry, although nobody can dial one of the two", async () => {
  hide();
  try {
    const joined = await runNsmIn(mesh, "west", "link", "join", await tokenOf(mesh, "east"));
    expect(joined).toMatchObject({ code: 0 });
    expect(await runNsmIn(mesh, "west", "export", "hidden", "--to", "east")).toMatchObject({ code: 0 });
    expect(await runNsmIn(mesh, "east", "export", "open", "--to", "west")).toMatchObject({ code: 0 });
    await vi.waitFor(async () => {
      expect(await linksOf(mesh, "east")).toMatchObject([{ way: "tunnel", offeredToUs: ["hidden"] }]);
      expect(await linksOf(mesh, "west")).toMatchObject([{ offeredToUs: ["open"] }]);
    }, PATIENCE);
    for (const [client, address] of [
      ["asks-hidden", "172.16.7.0"],
      ["asks-open", "172.16.8.0"],
    ] as const) {
      mesh.start(client);
      await mesh.established(client, "nsm-1");
      const pod = mesh.namespace(`pod-${client}`);
      expect(deviceIn(pod, "nsm-1").kind).toMatch(/^(wireguard|tun)$/);
      await vi.waitFor(async () => expect((await pingFrom(pod, address)).received).toBe(5), PATIENCE);
    }
    // Found where it was heard from, also by a forwarder that starts again.
    await mesh.restart("forwarder-node1");
    await mesh.daemon("forwarder-node1").waitFor("forwarder serves", 20_000);
    expect((await pingFrom(mesh.namespace("pod-asks-hidden"), "172.16.7.0")).received).toBe(5);
    for (const client of ["asks-hidden", "asks-open"]) await mesh.daemon(client).stop();
    await runNsmIn(mesh, "west", "link", "remove", "east");
  } finally {
    nft("delete table ip gate");
  }
});
