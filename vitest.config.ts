import { defineConfig } from "vitest/config";
import { shortOrLong } from "./test/support/long.ts";

/** Conditions are waited for longer than vitest does by itself. */
const patient = {
  setupFiles: ["test/support/patience.ts"],
  expect: { poll: { timeout: 10_000 } },
};
const MINUTE_MS = 60_000;
const slow = { testTimeout: shortOrLong(MINUTE_MS, 30 * MINUTE_MS), hookTimeout: MINUTE_MS };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["{api,sdk,nsmgr,forwarder,nsc,nse,registry,identity,proxy,cli}/**/*.test.ts"],
          testTimeout: 20_000,
          ...patient,
        },
      },
      { test: { name: "vectors", include: ["test/spec/**/*.test.ts"], testTimeout: 60_000, ...patient } },
      { test: { name: "fuzz", include: ["test/fuzz/**/*.test.ts"], testTimeout: 60_000, ...patient } },
      { test: { name: "build", include: ["test/build/**/*.test.ts"], testTimeout: 240_000 } },
      { test: { name: "architecture", include: ["test/architecture.test.ts"] } },
      {
        test: {
          name: "netns",
          include: ["test/netns/**/*.test.ts"],
          fileParallelism: false,
          pool: "forks",
          ...slow,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          fileParallelism: false,
          pool: "forks",
          ...slow,
          testTimeout: shortOrLong(3 * MINUTE_MS, 60 * MINUTE_MS),
        },
      },
    ],
  },
});
