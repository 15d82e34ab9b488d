import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseProtectedAddresses, protectedAddresses } from "./protected-addresses.ts";
import { firstRequest } from "./request.ts";
import { rewritten } from "./resolv-conf.ts";

const POD =
  "search svc.cluster.local\nnameserver 10.96.0.10\nnameserver 127.0.0.53\nnameserver 2001:DB8::1\n";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nsc-protected-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const own = (conf: string, apiServer?: string) => {
  const resolvConf = join(folder, "resolv.conf");
  writeFileSync(resolvConf, conf);
  return { resolver: "127.0.0.1", resolvConf, apiServer };
};
const listed = (text: string, conf = POD, apiServer?: string) =>
  protectedAddresses(parseProtectedAddresses(text), own(conf, apiServer));

test("a client protects its name servers and its API server, and not what is on this host", () => {
  expect(listed("auto", POD, "10.96.0.1")).toEqual(["10.96.0.10", "2001:db8::1", "10.96.0.1"]);
  expect(listed("auto", POD, "kubernetes.example")).toEqual(["10.96.0.10", "2001:db8::1"]);
});

test("also when a resolver of ours stands in the file", () => {
  expect(listed("auto", rewritten(POD, "127.0.0.1"))).toEqual(["10.96.0.10", "2001:db8::1"]);
});

test("its owner may name others, or none", () => {
  expect(listed("auto,192.0.2.7")).toEqual(["10.96.0.10", "2001:db8::1", "192.0.2.7"]);
  expect(listed("192.0.2.7,192.0.2.7")).toEqual(["192.0.2.7"]);
  for (const text of ["none", ""]) expect(listed(text, POD, "10.96.0.1")).toEqual([]);
  for (const text of ["auto,x", "10.0.0.0/8", "none,auto"])
    expect(() => parseProtectedAddresses(text)).toThrow(/expected auto, none, or addresses/);
});

test("a file that cannot be read protects nothing, and stops nobody", () => {
  const resolvConf = join(folder, "missing");
  expect(protectedAddresses(["auto"], { resolver: "127.0.0.1", resolvConf, apiServer: "10.96.0.1" })).toEqual(
    ["10.96.0.1"],
  );
});

test("the first request says them to the forwarder, and nothing where there are none", () => {
  const wish = {
    id: "nsc-0",
    name: "nsc",
    networkService: "s",
    labels: {},
    interfaceName: undefined,
    netnsUrl: "inode://4/5",
  };
  const parametersOf = (protectedOnes: readonly string[]) =>
    firstRequest({ ...wish, protectedAddresses: protectedOnes }).mechanismPreferences[0]?.parameters;
  expect(parametersOf(["10.96.0.10", "fd96::a"])).toEqual({
    inodeURL: "inode://4/5",
    protectedAddresses: "10.96.0.10;fd96::a",
  });
  expect(parametersOf([])).toEqual({ inodeURL: "inode://4/5" });
});
