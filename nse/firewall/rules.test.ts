import { describe, expect, test } from "vitest";
import { parseRules } from "./rules.ts";
import { counterOf, nameOfCounter, scriptOf } from "./script.ts";

const SIDES = { client: "in-", service: "out-" };
const EXAMPLE = `
default: deny
rules:
  - name: web
    action: allow
    protocol: tcp
    source: [10.0.0.0/8, 192.168.1.1]
    ports: [80, 8080-8090]
  - action: deny
    from: both
    destination: 2001:db8::/32
    protocol: icmp
`;

const forwardOf = (text: string) =>
  scriptOf(parseRules(text), SIDES, [], [])
    .split("\n")
    .filter((line) => line.includes(" forward ") && line.startsWith("add rule"))
    .map((line) => line.replace("add rule inet nsm-firewall forward ", ""));

test("rules in their order, after what is established and before the default", () => {
  expect(forwardOf(EXAMPLE)).toEqual([
    "ct state established,related accept",
    "ct state invalid drop",
    `iifname "in-*" ip saddr { 10.0.0.0/8, 192.168.1.1 } meta l4proto 6 th dport { 80, 8080-8090 } counter name ${counterOf({ name: "web" })} accept`,
    `iifname { "in-*", "out-*" } ip6 daddr { 2001:db8::/32 } meta l4proto { icmp, icmpv6 } counter name ${counterOf({ name: "rule 2" })} drop`,
    "counter name default",
  ]);
});

test("an empty file denies everything, and a default may allow", () => {
  expect(forwardOf("")).toEqual([
    "ct state established,related accept",
    "ct state invalid drop",
    "counter name default",
  ]);
  expect(forwardOf("default: allow").at(-1)).toBe('counter name default iifname { "in-*", "out-*" } accept');
});

test("counters keep their numbers unless their rule is gone", () => {
  const known = [counterOf({ name: "web" }), counterOf({ name: "gone" })];
  const script = scriptOf(parseRules(EXAMPLE), SIDES, [{ id: 7, devices: ["in-a", "out-a"] }], known);
  expect(script).toContain(`delete counter inet nsm-firewall ${counterOf({ name: "gone" })}`);
  expect(script).not.toContain(`delete counter inet nsm-firewall ${counterOf({ name: "web" })}`);
  expect(script).toContain('add element inet nsm-firewall zones { "in-a" : 7 }');
  expect(nameOfCounter(counterOf({ name: "a rule-1.2" }))).toBe("a rule-1.2");
});

describe("a fault is told with its place", () => {
  test.for([
    [
      "rules:\n  - action: allow\n    ports: [80, 99999]\n    protocol: tcp\n",
      /line 3, column 17: rules\[0\]\.ports\[1\] expected a port/,
    ],
    ["rules:\n  - action: permit\n", /line 2, column 13: .*action/],
    [
      "rules:\n  - action: allow\n    protokol: tcp\n",
      /line 3, column 5: rules\[0\]\.protokol is not known here/,
    ],
    ["rules:\n  - action: allow\n    source: 10.0.0.0/33\n", /line 3, column 13: /],
    ["rules:\n  - action: allow\n    ports: 80\n", /line 2, column 5: rule 1 has ports/],
    ["rules:\n  - { action: allow, source: 10.0.0.1, destination: '::1' }\n", /mixes IPv4 and IPv6/],
    [
      "rules:\n  - { action: allow, name: a }\n  - { action: deny, name: a }\n",
      /line 3, column 5: .*name a is taken by rule 1/,
    ],
    ["rules: [\n", /line \d+, column \d+: /],
    ["rules:\n  - { action: allow, name: '} drop #' }\n", /line 2, column \d+: .*name/],
    ["default: deny\nrulez:\n  - action: allow\n", /line 2, column 1: rulez is not known here/],
    ["- a\n", /line 1, column 1: /],
  ] as const)("%s", ([text, fault]) => {
    expect(() => parseRules(text)).toThrow(fault);
  });
});

test("packets between the two sides are marked before they are routed, and those of no side are not", () => {
  const lines = scriptOf(parseRules(""), SIDES, [], []).split("\n");
  const marking = lines.findIndex((line) => line.includes("mark set"));
  expect(lines[marking]).toBe(
    'add rule inet nsm-firewall zones iifname { "in-*", "out-*" } meta mark set meta mark | 1073741824',
  );
  expect(marking).toBeGreaterThan(lines.indexOf("flush chain inet nsm-firewall zones"));
});
