import { expect, test } from "vitest";
import {
  address,
  addressList,
  bool,
  commonTable,
  duration,
  editDistance,
  helpOf,
  integer,
  list,
  map,
  oneOf,
  only,
  optionalText,
  parseDuration,
  policies,
  port,
  readConfig,
  text,
} from "./config.ts";

const table = {
  name: text("NSM_NAME", "nsc", "name of this client"),
  listenOn: addressList("NSM_LISTEN_ON", undefined, "where it listens"),
  timeoutMs: duration("NSM_DIAL_TIMEOUT", "750ms", "time to connect"),
  labels: map("NSM_LABELS", "", "labels"),
};
const noWarning = (line: string) => expect.unreachable(line);

test("defaults are parsed like given values, and an empty value means the default", () => {
  const config = readConfig(
    table,
    { NSM_LISTEN_ON: "unix:///run/a.sock,tcp://:5001", NSM_NAME: "" },
    noWarning,
  );
  expect(config).toEqual({
    name: "nsc",
    listenOn: ["unix:///run/a.sock", "tcp://:5001"],
    timeoutMs: 750,
    labels: new Map(),
  });
  expect(Object.isFrozen(config)).toBe(true);
});

test("all faults are reported at once, each with the variable and its value", () => {
  const env = { NSM_DIAL_TIMEOUT: "fast", NSM_LABELS: "a" };
  expect(() => readConfig(table, env, noWarning)).toThrow(
    expect.objectContaining({
      code: "INVALID_ARGUMENT",
      reason: "bad-configuration",
      message: [
        "bad configuration:",
        "NSM_LISTEN_ON must be set: where it listens",
        "NSM_DIAL_TIMEOUT=fast: expected a duration such as 750ms, 10s or 1h30m",
        'NSM_LABELS=a: expected key:value, got "a"',
      ].join("\n  "),
    }),
  );
});

test("an unknown NSM_ variable is warned about with the nearest name, others are not looked at", () => {
  const warnings: string[] = [];
  const env = { NSM_LISTEN_ON: "tcp://:1", NSM_LISTENON: "x", PATH: "/bin", NSM_VECTORS: "/data" };
  readConfig(table, env, (line) => warnings.push(line));
  expect(warnings).toEqual([
    "NSM_LISTENON is not a variable of this command and has no effect; the nearest is NSM_LISTEN_ON",
  ]);
});

test.for([
  ["0", 0],
  ["750ms", 750],
  ["1h30m", 5_400_000],
  ["1.5s", 1500],
  [".5m", 30_000],
  ["1m0.5s", 60_500],
  ["100µs", 0.1],
] as const)("the duration %s is %d ms", ([value, ms]) => {
  expect(parseDuration(value)).toBeCloseTo(ms, 9);
});

test.for(["", "10", "-1s", "1 s", "1d", "s", "1s ", "1e3s"])("%j is no duration", (value) => {
  expect(() => parseDuration(value)).toThrow("expected a duration");
});

test.for(["unix:///run/nsm/nsmgr.sock", "tcp://127.0.0.1:5001", "tcp://:5001", "[::1]:5001", "host:65535"])(
  "%s is an address",
  (value) => {
    expect(address("X", undefined, "").parse(value)).toBe(value);
  },
);

test.for(["unix://run/x", `unix:///${"x".repeat(107)}`, "tcp://host", "http://host:1", "host:65536", "host"])(
  "%s is no address",
  (value) => {
    expect(() => address("X", undefined, "").parse(value)).toThrow("expected");
  },
);

test("words, numbers, ports, lists and booleans are read strictly", () => {
  const level = oneOf("INFO", "DEBUG")("X", "INFO", "");
  expect(level.parse("debug")).toBe("DEBUG");
  expect(() => level.parse("loud")).toThrow("expected INFO, DEBUG");
  expect(integer("X", "", "").parse("42")).toBe(42);
  for (const value of ["", "-1", "1.5", "0x10", "1e3", "9007199254740993"])
    expect(() => integer("X", "", "").parse(value)).toThrow("whole number");
  expect(() => port("X", "", "").parse("65536")).toThrow("expected a port");
  expect(list("X", "", "").parse("a,b")).toEqual(["a", "b"]);
  expect(bool("X", "", "").parse("T")).toBe(true);
  expect(() => bool("X", "", "").parse("yes")).toThrow("true or false");
  expect(optionalText("X", "", "").parse("")).toBeUndefined();
});

test("a label map keeps colons in values and has no prototype to stumble over", () => {
  const labels = map("X", "", "").parse("app:nse,__proto__:x,url:tcp://h:1");
  expect([...labels]).toEqual([
    ["app", "nse"],
    ["__proto__", "x"],
    ["url", "tcp://h:1"],
  ]);
});

test("policies of one's own refuse to start, the default lists are fine", () => {
  const variable = policies("NSM_REGISTRY_SERVER_POLICIES", "server");
  const defaults = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/server/.*.rego";
  expect(variable.parse(defaults)).toBeUndefined();
  expect(variable.parse("")).toBeUndefined();
  expect(() => variable.parse("/etc/own.rego")).toThrow("not supported");
  expect(() => only("X", ["a"], "why").parse("b")).toThrow("why");
});

test("help names every variable with its type and default, and fits the width", () => {
  const help = helpOf({ ...commonTable, ...table }, 60);
  for (const { env } of Object.values({ ...commonTable, ...table })) expect(help).toContain(`  ${env}  (`);
  expect(help).toContain("  NSM_LISTEN_ON  (address list, required)\n      where it listens\n");
  expect(help).toContain("  NSM_DIAL_TIMEOUT  (duration, default 750ms)\n");
  const meanings = help.split("\n").filter((line) => line.startsWith("      "));
  expect(meanings.filter((line) => line.length > 60)).toEqual([]);
});

test("the edit distance counts insertions, deletions and substitutions", () => {
  expect(editDistance("", "abc")).toBe(3);
  expect(editDistance("kitten", "sitting")).toBe(3);
  expect(editDistance("NSM_NAME", "NSM_NAME")).toBe(0);
});
