import { expect, test } from "vitest";
import { roles } from "./roles.ts";

const all = roles.flatMap((role) => [role, ...(role.kinds ?? [])]);

test.for(all)("$name has metrics", async ({ load }) => {
  const { table } = await load();
  expect(Object.values(table).map(({ env }) => env)).toContain("NSM_METRICS_LISTEN_ON");
  expect(Object.keys(table)).toContain("metricsListenOn"); // the name that run-daemon.ts reads
});
