import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { publicKeyOf } from "../keys.ts";
import { GET, askProgram, formatDevice, formatNewPeer, formatPlace, parseState } from "./uapi.ts";

const key = (byte: number) => new Uint8Array(32).fill(byte);
const [ONE, TWO] = ["01".repeat(32), "02".repeat(32)];
const shape = {
  remoteIp: "fd09::2",
  localPort: 51820,
  remotePort: 51821,
  privateKey: key(1),
  remotePublicKey: key(2),
};
const PEER = `replace_peers=true
public_key=${TWO}
endpoint=[fd09::2]:51821
persistent_keepalive_interval=10
replace_allowed_ips=true
allowed_ip=0.0.0.0/0
allowed_ip=::/0
`;
const BEAT = `persistent_keepalive_interval=0
public_key=${TWO}
update_only=true
persistent_keepalive_interval=10
`;

test("a device has a key, a port and one peer that may carry everything", () => {
  expect(formatDevice(shape)).toBe(`set=1\nprivate_key=${ONE}\nlisten_port=51820\n${PEER}\n`);
});

test("a peer alone is made anew, or moved and sent a keepalive", () => {
  expect(formatNewPeer(shape)).toBe(`set=1\n${PEER}\n`);
  const existing = `set=1\npublic_key=${TWO}\nupdate_only=true\n`;
  expect(formatPlace({ ...shape, remoteIp: "10.9.0.2" })).toBe(
    `${existing}endpoint=10.9.0.2:51821\n${BEAT}\n`,
  );
});

test.each([
  ["endpoint=10.9.0.2:51821\n", "10.9.0.2", 51821],
  ["endpoint=[fd09::2]:51821\n", "fd09::2", 51821],
  ["", undefined, undefined],
])("a device with %j is read", (endpoint, remoteIp, remotePort) => {
  const state = {
    privateKey: key(1),
    publicKey: publicKeyOf(key(1)),
    port: 51820,
    remotePublicKey: key(2),
    remoteIp,
    remotePort,
    lastHandshakeMs: undefined,
    rxBytes: 660,
  };
  const answer = (seconds: number) =>
    `private_key=${ONE}\nlisten_port=51820\npublic_key=${TWO}\n${endpoint}last_handshake_time_sec=${seconds}\nlast_handshake_time_nsec=250000000\nrx_bytes=660\nerrno=0\n\n`;
  expect(parseState(answer(0).replace("250000000", "0"))).toEqual(state);
  expect(parseState(answer(1_767_225_605))?.lastHandshakeMs).toBe(1_767_225_605_250);
});

test("a device without key or peer", () => {
  expect(parseState("listen_port=0\nerrno=0\n\n")).toBeUndefined();
  expect(parseState(`private_key=${ONE}\nerrno=0\n\n`)).toMatchObject({
    remotePublicKey: undefined,
    rxBytes: 0,
  });
});

/** A program that answers so. */
async function serve(answer: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "nsm-uapi-"));
  const path = join(directory, "program.sock");
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(answer));
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  onTestFinished(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  return path;
}

test("a program is asked, and its refusal told", async () => {
  expect(await askProgram(await serve("listen_port=1\nerrno=0\n\n"), GET)).toContain("listen_port=1");
  const failed = { code: "UNAVAILABLE", reason: "wireguard-go-failed" };
  for (const [answer, why] of [
    ["errno=-98\n\n", "errno -98"],
    ["listen_port=1\n", "closed"],
    ["x".repeat(70_000), "no end"],
  ] as const)
    await expect(askProgram(await serve(answer), GET)).rejects.toMatchObject({
      ...failed,
      message: expect.stringContaining(why),
    });
  await expect(askProgram("/nonexistent/program.sock", GET)).rejects.toMatchObject({
    reason: "wireguard-go-gone",
  });
});
