import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkTcpUrl, parseRefusedAddresses, refusedAddresses } from "./endpoint-url.ts";

const refused = parseRefusedAddresses(refusedAddresses().fallback ?? "");
const reasonOf = (url: string, list = refused): string => {
  try {
    checkTcpUrl(url, list, "endpoint x");
    return "";
  } catch (error) {
    return String(Reflect.get(Object(error), "reason"));
  }
};

describe("the url of an endpoint", () => {
  test.for([
    ["tcp://192.0.2.1:5001", ""],
    ["tcp://10.0.0.1:1", ""],
    ["tcp://[2001:db8::1]:65535", ""],
    ["tcp://127.0.0.1:5001", "refused-address"],
    ["tcp://127.9.9.9:5001", "refused-address"],
    ["tcp://0.0.0.0:5001", "refused-address"],
    ["tcp://169.254.169.254:80", "refused-address"],
    ["tcp://224.0.0.1:5001", "refused-address"],
    ["tcp://255.255.255.255:5001", "refused-address"],
    ["tcp://[::1]:5001", "refused-address"],
    ["tcp://[::]:5001", "refused-address"],
    ["tcp://[fe80::1]:5001", "refused-address"],
    ["tcp://[ff02::1]:5001", "refused-address"],
    ["tcp://[::ffff:127.0.0.1]:5001", "refused-address"],
    ["tcp://[::ffff:7f00:1]:5001", "refused-address"],
    ["tcp://[fe80::1%eth0]:5001", "bad-endpoint-url"],
    ["tcp://localhost:5001", "bad-endpoint-url"],
    ["tcp://metadata.google.internal:80", "bad-endpoint-url"],
    ["tcp://127.1:5001", "bad-endpoint-url"],
    ["tcp://2130706433:5001", "bad-endpoint-url"],
    ["tcp://0x7f000001:5001", "bad-endpoint-url"],
    ["tcp://0177.0.0.1:5001", "bad-endpoint-url"],
    ["tcp://:5001", "bad-endpoint-url"],
    ["tcp://192.0.2.1", "bad-endpoint-url"],
    ["tcp://192.0.2.1:0", "bad-endpoint-url"],
    ["tcp://192.0.2.1:65536", "bad-endpoint-url"],
    ["tcp://192.0.2.1:5001/path", "bad-endpoint-url"],
    ["tcp://user@192.0.2.1:5001", "bad-endpoint-url"],
    ["tcp://192.0.2.1:5001\r\nx", "bad-endpoint-url"],
    ["tcp://192.0.2.1:5001\n", "bad-endpoint-url"],
    ["TCP://192.0.2.1:5001", "bad-endpoint-url"],
    ["http://192.0.2.1:5001", "bad-endpoint-url"],
    ["unix:///run/x.sock", "bad-endpoint-url"],
    ["", "bad-endpoint-url"],
  ] as const)("%j is %j", ([url, reason]) => {
    expect(reasonOf(url)).toBe(reason);
  });

  test("may be anything with an address or a name when nothing is refused", () => {
    expect(
      ["tcp://127.0.0.1:5001", "tcp://localhost:5001", "tcp://:5001", "tcp://[x]:1"].map((url) =>
        reasonOf(url, []),
      ),
    ).toEqual(["", "", "bad-endpoint-url", "bad-endpoint-url"]);
  });

  test("never leads into 127.0.0.0/8, however it is written", () => {
    const octet = fc.nat(255);
    fc.assert(
      fc.property(octet, octet, octet, fc.constantFrom("", "[::ffff:"), (b, c, d, before) => {
        const host = `${before}127.${b}.${c}.${d}${before === "" ? "" : "]"}`;
        expect(reasonOf(`tcp://${host}:5001`)).toBe("refused-address");
      }),
    );
  });
});

test("a list of prefixes names what is none", () => {
  expect(parseRefusedAddresses("")).toEqual([]);
  expect(() => parseRefusedAddresses("10.0.0.0/8,x")).toThrow('"x" is no prefix');
});
