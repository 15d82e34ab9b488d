import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ndotsOf, originalOf, parseResolvConf, readConf, rewritten, writeConf } from "./resolv-conf.ts";

const POD = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";

test("all servers count, of the search lists the last; tabs, comments and other lines are as resolv.conf(5) has them", () => {
  const text =
    "# a\n;b\n\nnameserver\t10.96.0.10  # no\nnameserver 2001:DB8::1\nnameserver fe80::1%eth0\r\nnameserver x\ndomain a\nsearch  B.c.\td\noptions ndots:5";
  expect(parseResolvConf(text)).toEqual({
    servers: ["10.96.0.10", "2001:db8::1", "fe80::1"],
    domains: ["b.c", "d"],
    others: ["options ndots:5"],
  });
  expect(parseResolvConf("")).toEqual({ servers: [], domains: [], others: [] });
});

test("ndots is the last that is said, 1 when nothing is, and never more than 15", () => {
  const ndots = (text: string) => ndotsOf(parseResolvConf(text));
  expect(ndots("options timeout:1 ndots:5 rotate\n")).toBe(5);
  expect(ndots("options ndots:5\noptions ndots:0")).toBe(0);
  expect(ndots("options ndots:99999")).toBe(15);
  for (const text of ["", "options ndots:x", "#options ndots:5", "xoptions ndots:5"])
    expect(ndots(text)).toBe(1);
});

test("the rewritten file names our resolver alone, without search domains, and keeps the options", () => {
  const text = rewritten(POD, "127.0.0.1");
  expect(parseResolvConf(text)).toEqual({ servers: ["127.0.0.1"], domains: [], others: ["options ndots:5"] });
  expect(originalOf(text, "127.0.0.1")).toBe(POD);
});

test("whatever was in the file comes back byte by byte, also when it is rewritten twice", () => {
  const files = fc.oneof(
    fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((byte) => String.fromCharCode(byte)) }),
    fc
      .array(fc.constantFrom("nameserver 10.0.0.1", "#nsm|", "# x", "", "\r", "search a b", "options x"))
      .map((lines) => lines.join("\n")),
  );
  fc.assert(
    fc.property(files, (original) => {
      const once = rewritten(original, "127.0.0.1");
      expect(originalOf(once, "127.0.0.1")).toBe(original);
      expect(rewritten(originalOf(once, "127.0.0.1") ?? "", "127.0.0.1")).toBe(once);
    }),
  );
});

test("a file that a Go client left is put back from its comments; any other is nobody's", () => {
  const left =
    "#nameserver 10.96.0.10\n#search a.b\n#options ndots:5\nnameserver 127.0.0.1\noptions ndots:5\n";
  expect(originalOf(left, "127.0.0.1")).toBe("nameserver 10.96.0.10\nsearch a.b\noptions ndots:5\n");
  expect(originalOf("# nothing\nnameserver 127.0.0.1\n", "127.0.0.1")).toBeUndefined();
  expect(originalOf("#nameserver 10.0.0.2\nnameserver 10.0.0.1\n", "127.0.0.1")).toBeUndefined();
  expect(originalOf(POD, "127.0.0.1")).toBeUndefined();
});

test("the file is written in place, longer or shorter", () => {
  const folder = mkdtempSync(join(tmpdir(), "resolv-"));
  try {
    const path = join(folder, "resolv.conf");
    writeFileSync(path, Buffer.from([0x23, 0xe4, 0x0a])); // no UTF-8
    const { ino } = statSync(path);
    const original = readConf(path);
    writeConf(path, rewritten(original, "127.0.0.1"));
    expect(readConf(path)).toBe(rewritten(original, "127.0.0.1"));
    writeConf(path, original);
    expect(readFileSync(path)).toEqual(Buffer.from([0x23, 0xe4, 0x0a]));
    expect(statSync(path).ino).toBe(ino);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
