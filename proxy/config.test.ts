import { expect, test } from "vitest";
import { readConfig } from "../sdk/config.ts";
import { proxyTable } from "./config.ts";

const read = (env: Readonly<Record<string, string>>) => readConfig(proxyTable, env, () => undefined);

test.for([
  ["NSM_EXTERNAL_URL", "somewhere", "expected unix:///path, tcp://host:port or host:port"],
  ["NSM_ALLOW_UNENCRYPTED_DOMAINS", "west,a@b", '"a@b" is no domain'],
  ["NSM_DOMAIN", "we@st", "expected lower-case letters"],
  ["NSM_EXTERNAL_IP", "192.0.2", '"192.0.2" is no IP address'],
] as const)("%s=%s is refused at start", ([name, value, why]) => {
  expect(() => read({ [name]: value })).toThrow(`${name}=${value}: ${why}`);
});

test("domains that may go unencrypted are named, or all", () => {
  expect(read({ NSM_ALLOW_UNENCRYPTED_DOMAINS: "west,west.nsm" }).unencryptedDomains).toEqual([
    "west",
    "west.nsm",
  ]);
  expect(read({ NSM_ALLOW_UNENCRYPTED_DOMAINS: "*" }).unencryptedDomains).toEqual(["*"]);
  expect(read({}).unencryptedDomains).toEqual([]);
});
