import { expect, test } from "vitest";
import { readConfig } from "../../sdk/config.ts";
import { daemon } from "./main.ts";

const check = (env: Record<string, string>) => daemon.check?.(readConfig(daemon.table, env, () => undefined));

test("a firewall of no service is misconfigured; either of the two variables names one", () => {
  expect(() => check({})).toThrow("NSM_SERVICE_NAMES must be set");
  expect(() => check({ NSM_SERVICE_NAMES: "chain" })).not.toThrow();
  expect(() => check({ NSM_SERVICE_NAME: "chain" })).not.toThrow();
});
