import { expect, test } from "vitest";
import { prefixOf } from "../prefix.ts";
import type { Request } from "./message.ts";
import { decodeRule, deleteRule, dumpRules, newRule } from "./rule.ts";
import type { Rule } from "./rule.ts";

const v4: Rule = {
  family: 4,
  source: prefixOf("10.0.0.1/32"),
  ipProtocol: 6,
  sourcePorts: { from: 1000, to: 1000 },
  destinationPorts: { from: 80, to: 443 },
  table: 1,
  priority: 32765,
};
const v6: Rule = {
  family: 6,
  source: prefixOf("fd00::/64"),
  table: 1000,
  priority: 7,
};
const byMark: Rule = {
  family: 4,
  iif: "in",
  mark: { value: 0x10, mask: 0xff },
  table: 2,
  priority: 10,
};
const byDevice: Rule = { family: 6, priority: 15, table: undefined, iif: "nsm-1", protocol: 159 };

test.each<[string, Request, number, number, string]>([
  [
    "all selectors of an IPv4 rule",
    newRule(v4),
    32,
    0x600,
    `02002000 01000001 00000000 08000200 0a000001 08000600 fd7f0000 08000f00 01000000
     05001500 9d000000 05001600 06000000 08001700 e803e803 08001800 5000bb01`,
  ],
  [
    "an IPv6 rule to a table above 255",
    newRule(v6),
    32,
    0x600,
    `0a004000 00000001 00000000 14000200 fd000000000000000000000000000000 08000600 07000000
     08000f00 e8030000 05001500 9d000000`,
  ],
  [
    "a rule is deleted by all that it was made of",
    deleteRule({ ...v6, source: undefined }),
    33,
    0,
    "0a000000 00000001 00000000 08000600 07000000 08000f00 e8030000 05001500 9d000000",
  ],
  [
    "a rule of somebody else's that drops what comes in by a device",
    newRule(byDevice),
    32,
    0x600,
    "0a000000 00000006 00000000 0a000300 6e736d2d31000000 08000600 0f000000 05001500 9f000000",
  ],
  [
    "a rule for packets with a mark",
    newRule(byMark),
    32,
    0x600,
    `02000000 02000001 00000000 07000300 696e0000 08000600 0a000000 08000a00 10000000 08001000 ff000000
     08000f00 02000000 05001500 9d000000`,
  ],
  ["all rules of all families", dumpRules(), 34, 0x300, "00000000 00000000 00000000"],
  ["all rules of a family", dumpRules(6), 34, 0x300, "0a000000 00000000 00000000"],
])("%s", (_, request, type, flags, body) => {
  expect([request.type, request.flags]).toEqual([type, flags]);
  expect(Buffer.from(request.body).toString("hex")).toBe(body.replaceAll(/\s/g, ""));
});

test.each([v4, v6, byMark, byDevice])("a rule is read back as it was made", (rule) => {
  const message = { type: 32, flags: 0, seq: 1, body: Buffer.from(newRule(rule).body) };
  expect(decodeRule(message)).toEqual({ protocol: 157, ...rule });
});

test("the kernel's own rules select all, and rules of other families are none", () => {
  const body = Buffer.from("02000000 ff000001 00000000".replaceAll(" ", ""), "hex");
  expect(decodeRule({ type: 32, flags: 0, seq: 1, body })).toEqual({
    family: 4,
    source: undefined,
    ipProtocol: undefined,
    sourcePorts: undefined,
    destinationPorts: undefined,
    table: 255,
    priority: 0,
    protocol: 0,
  });
  body.writeUInt8(128, 0);
  expect(decodeRule({ type: 32, flags: 0, seq: 1, body })).toBeUndefined();
});
