import { expect, test } from "vitest";
import { childEnvironment } from "./child-environment.ts";

test("an endpoint that is started has the supplier's variables, but none that two processes cannot share", () => {
  const config = { serviceNames: ["lan", "wan"], payload: "IP", idleTimeoutMs: 5000 } as const;
  const own = {
    PATH: "/usr/bin",
    NSM_CONNECT_TO: "unix:///run/nsm.sock",
    NSM_NAME: "supplier",
    NSM_LABELS: "app:supplier",
    NSM_LISTEN_ON: "unix:///run/supplier.sock",
    NSM_METRICS_LISTEN_ON: "tcp://127.0.0.1:9090",
    NSM_SUPPLY_LIMIT: "3",
    NSM_REGISTER_SERVICE: "true",
  };
  expect(childEnvironment(config, own)).toEqual({
    PATH: "/usr/bin",
    NSM_CONNECT_TO: "unix:///run/nsm.sock",
    NSM_SERVICE_NAMES: "lan,wan",
    NSM_PAYLOAD: "IP",
    NSM_REGISTER_SERVICE: "false",
    NSM_UNREGISTER_ITSELF: "true",
    NSM_IDLE_TIMEOUT: "5000ms",
  });
});
