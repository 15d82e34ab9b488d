import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, MechanismSchema } from "../../api/gen/connection_pb.js";
import { writeSegmentMetrics } from "./segment-metrics.ts";
import type { EndStats } from "../kernel/stats.ts";

const mechanism = (type: string) => create(MechanismSchema, { cls: "LOCAL", type });
const pod = (interfaceName: string) =>
  ({ kind: "kernel", netns: { pid: 1, inode: 1n }, interfaceName, binding: "" }) as const;
const tunnel = { kind: "vxlan", localIp: "", remoteIp: "", port: 4789, vni: 1 } as const;
const counted = { rxErrors: 0, txErrors: 0, rxDropped: 2, txDropped: 3 };
const client: EndStats = {
  ...counted,
  side: "client",
  interfaceName: "nsm-1",
  rxPackets: 1,
  txPackets: 4,
  rxBytes: 100,
  txBytes: 400,
};

function metricsOf(endpoint: "KERNEL" | "VXLAN", stats: readonly EndStats[]) {
  const connection = create(ConnectionSchema, {
    mechanism: mechanism(endpoint),
    path: { index: 1, pathSegments: [{ name: "a" }, { name: "b", metrics: { kept: "yes" } }] },
  });
  const wire = { client: pod("nsm-1"), endpoint: endpoint === "KERNEL" ? pod("nse-1") : tunnel };
  writeSegmentMetrics(connection, mechanism("KERNEL"), wire, stats);
  expect(connection.path?.pathSegments[0]?.metrics).toEqual({});
  return connection.path?.pathSegments[1]?.metrics;
}

test("a wire that was just made has interfaces and no counters", () => {
  expect(metricsOf("VXLAN", [])).toEqual({
    kept: "yes",
    server_interface: "KERNEL/nsm-1",
    client_interface: "VXLAN/nsm-1",
  });
});

test("counters are the forwarder's: what the pod's device sent was received, and the one device of a tunnel counts for both sides", () => {
  const towardsClient = {
    server_rx_bytes: "400",
    server_tx_bytes: "100",
    server_rx_packets: "4",
    server_tx_packets: "1",
    server_drops: "5",
  };
  expect(metricsOf("VXLAN", [client])).toMatchObject({
    ...towardsClient,
    client_rx_bytes: "100",
    client_tx_bytes: "400",
    client_rx_packets: "1",
    client_tx_packets: "4",
  });
  const endpoint: EndStats = { ...client, side: "endpoint", rxBytes: 390, txBytes: 90 };
  expect(metricsOf("KERNEL", [client, endpoint])).toMatchObject({
    ...towardsClient,
    client_rx_bytes: "90",
    client_tx_bytes: "390",
  });
});
