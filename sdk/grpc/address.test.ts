import { expect, test } from "vitest";
import { formatAddress, grpcTarget, parseAddress } from "./address.ts";

test.each([
  ["unix:///run/nsm.sock", "unix:///run/nsm.sock", "unix:/run/nsm.sock"],
  ["unix:/run/nsm.sock", "unix:///run/nsm.sock", "unix:/run/nsm.sock"],
  ["unix:///proc/self/fd/7", "unix:///proc/self/fd/7", "unix:/proc/self/fd/7"],
  ["unix:///with space?and#%20", "unix:///with space?and#%20", "unix:/with space?and#%20"],
  ["tcp://10.0.0.1:5001", "tcp://10.0.0.1:5001", "dns:10.0.0.1:5001"],
  ["tcp://[fd00::1]:5001", "tcp://[fd00::1]:5001", "dns:[fd00::1]:5001"],
  ["registry.nsm:5002", "tcp://registry.nsm:5002", "dns:registry.nsm:5002"],
  ["tcp://:5001", "tcp://:5001", "dns::5001"],
])("%s is %s", (url, canonical, target) => {
  const address = parseAddress(url);
  expect(formatAddress(address)).toBe(canonical);
  expect(grpcTarget(address)).toBe(target);
  expect(parseAddress(canonical)).toEqual(address);
});

test.each([
  "",
  "unix://",
  "unix:relative",
  "unix:////double",
  "unix:///nul\0",
  `unix:///${"x".repeat(107)}`,
  "tcp://",
  "tcp://host",
  "tcp://host:65536",
  "tcp://host:-1",
  "tcp://host:1/path",
  "tcp://user@host:1",
  "tcp://fd00::1:5001",
  "http://host:1",
  "inode://4/5",
  "host:port",
])("%j is refused", (url) => {
  expect(() => parseAddress(url)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bad-address" }),
  );
});
