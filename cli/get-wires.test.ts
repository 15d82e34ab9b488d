import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { clientRows, wireRow, wireRows } from "./get-wires.ts";

const NOW = Date.UTC(2030, 0, 1);

/** The same wire as the manager at `index` sees it. */
function wire(index: number, name = "client", key = "1", state = State.UP): Connection {
  const ids = [`${name}-0`, `m1-${key}`, `f1-${key}`, `m2-${key}`, `f2-${key}`, `e-${key}`];
  const names = [name, "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "nse"];
  return create(ConnectionSchema, {
    id: ids[index] ?? "",
    networkService: "lan",
    networkServiceEndpointName: "nse",
    state,
    payload: "ETHERNET",
    labels: { nodeName: "node-1", podName: `pod-${name}` },
    mechanism:
      index === 1 ? { cls: "LOCAL", type: "KERNEL", parameters: { name: "nsm-1" } } : { type: "VXLAN" },
    context: { MTU: 1446, ipContext: { srcIpAddrs: ["10.0.0.1/32"], dstIpAddrs: ["10.0.0.0/32"] } },
    path: {
      index,
      pathSegments: ids.map((id, i) => ({
        name: names[i] ?? "",
        id,
        expires: timestampFromMs(NOW + 60_000 + i),
        metrics: i === 2 ? { server_interface: "KERNEL/nsm-1", client_interface: "VXLAN/" } : {},
      })),
    },
  });
}

test("a wire is shown by its id at the client's manager, with the tunnel that forwarders name and its earliest end", () => {
  expect(wireRow(wire(1))).toEqual({
    id: "m1-1",
    client: "client",
    service: "lan",
    endpoint: "nse",
    state: "UP",
    mechanism: "VXLAN",
    interface: "nsm-1",
    addresses: ["10.0.0.1/32"],
    peerAddresses: ["10.0.0.0/32"],
    mtu: 1446,
    payload: "ETHERNET",
    path: ["client", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "nse"],
    expires: "2030-01-01T00:01:00.000Z",
  });
});

test("a wire that two managers show is one row: the view of the client's manager", () => {
  const rows = wireRows([wire(3), wire(1), wire(1, "a", "2")]);
  expect(rows.map(({ id, interface: name }) => [id, name])).toEqual([
    ["m1-2", "nsm-1"],
    ["m1-1", "nsm-1"],
  ]);
  expect(wireRows([wire(3)])).toMatchObject([{ id: "m1-1", interface: "" }]);
});

test("a connection with nothing in it is shown all the same", () => {
  expect(wireRow(create(ConnectionSchema, { id: "x" }))).toMatchObject({
    id: "x",
    client: "",
    mechanism: "",
    expires: null,
  });
});

test("clients are counted by their own manager alone", () => {
  const rows = clientRows([wire(1), wire(1, "client", "2", State.DOWN), wire(3, "other", "3")]);
  expect(rows).toEqual([
    { client: "client", node: "node-1", pod: "pod-client", wires: 2, up: 1, services: ["lan"] },
  ]);
});
