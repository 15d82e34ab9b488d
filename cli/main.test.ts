import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

const nsm = (...words: readonly string[]) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(import.meta.dirname, "main.ts"), ...words],
    { encoding: "utf8", env: { NSM_NETWORK_SERVICE: "kernel://lan" } },
  );
  return { status, stdout, stderr };
};

test("help finds commands of every level", () => {
  expect(nsm("help", "nse", "firewall").stdout).toMatch(/^Usage: nsm nse firewall /);
  expect(nsm("help", "get", "wires").stdout).toMatch(/^Usage: nsm get wires/);
  expect(nsm("help").stdout).toMatch(/^Usage: nsm /);
});

test.for([
  [["nse", "firewal"], "unknown command 'firewal'\n(Did you mean firewall?)"],
  [["nsmgr", "now"], "unexpected argument 'now'"],
  [["demmo"], "Did you mean demo?"],
] as const)("%j is no command, and told so", ([words, text]) => {
  const { status, stderr } = nsm(...words);
  expect(stderr).toContain(text);
  expect(status).toBe(2);
});

test("an error points to the help of the command that was meant", () => {
  const { status, stderr } = nsm("get", "wires", "-o", "xml");
  expect(stderr).toContain("(nsm get wires --help lists the options)");
  expect(status).toBe(2);
});

test("a variable that is missing because it was misspelt is named beside the right one", () => {
  const { status, stderr } = nsm("nsc");
  expect(stderr).toContain("NSM_NETWORK_SERVICES must be set");
  expect(stderr).toContain("NSM_NETWORK_SERVICE is not a variable of this command");
  expect(status).toBe(2);
});

test("what is special to a daemon stands before what all have", () => {
  const { stdout } = nsm("nse", "firewall", "--help");
  expect(stdout.indexOf("NSM_ACL_CONFIG_PATH")).toBeGreaterThan(0);
  expect(stdout.indexOf("NSM_ACL_CONFIG_PATH")).toBeLessThan(stdout.indexOf("NSM_LOG_LEVEL"));
  expect(stdout.indexOf("NSM_LOG_LEVEL")).toBeLessThan(stdout.indexOf("NSM_PPROF_LISTEN_ON"));
});
