import { expect, test } from "vitest";
import { defaultRouteDevice } from "./tunnel-ip.ts";

const HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT";

test("the default route with the least metric names the device", () => {
  const routes = [
    HEADER,
    "eth1\t00000000\t0101A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0",
    "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0",
    "eth2\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
  ].join("\n");
  expect(defaultRouteDevice(routes)).toBe("eth0");
});

test("a node without default route has none", () => {
  expect(
    defaultRouteDevice(`${HEADER}\neth2\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n`),
  ).toBeUndefined();
});
