import { expect, test } from "vitest";
import { wireTree } from "./tree.ts";
import type { WireState } from "./tree.ts";

const wire = (
  client: string,
  index: number,
  path: readonly string[],
  more: Partial<WireState> = {},
): WireState => ({
  client,
  connection: `${client}-${index}`,
  interface: `nsm-${index + 1}`,
  path: [client, "nsmgr-node1", "forwarder-node1", ...path],
  state: "up",
  ...more,
});

test("wires hang below their clients; other clusters and endpoints that pass on are on their way", () => {
  const through = ["proxy-east", "proxy-west", "nsmgr-node3", "forwarder-node3"];
  expect(
    wireTree(
      [
        wire("client", 0, ["nse-1"], { mechanism: "KERNEL", rttMs: 0.271 }),
        wire("edge", 0, ["firewall", "nsmgr-node1", "forwarder-node1", ...through, "gateway"], {
          state: "healing",
        }),
        wire("client", 1, [...through, "far"], { mechanism: "WIREGUARD", rttMs: null }),
      ],
      "east",
      100,
    ),
  ).toEqual([
    "east",
    "├─ client  nsm-1  KERNEL     0.27 ms  ══ nse-1",
    "│          nsm-2  WIREGUARD           ══ west ══ far",
    "└─ edge    nsm-1  healing             ╌╌ firewall ╌╌ west ╌╌ gateway",
  ]);
});

test("a line that is wider than the terminal is cut", () => {
  expect(wireTree([wire("client", 0, ["nse-1"])], undefined, 12)).toEqual(["wires", "└─ client  …"]);
});

test("without wires there is no tree", () => {
  expect(wireTree([], "east", 80)).toEqual([]);
});
