/** The process behind a unix socket, alive, dead, and after its session. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openBed, until } from "../../test/support/grpc.ts";
import { holdProcess, readPeerProcess } from "./process.ts";
import type { OwnedProcess } from "./process.ts";

/** A child that connects to `path` and stays. */
function connectFromChild(path: string): ChildProcess {
  const script = `data:text/javascript,import net from "node:net";net.connect(process.argv[2]).resume()`;
  return fork("", [path], {
    execArgv: ["--input-type=module", "--import", script, "-e", "setInterval(()=>{},1e6)"],
  });
}

test("a peer's process is known by its pidfd: alive, ended, and held for longer than its session", async () => {
  await using bed = await openBed();
  const path = join(bed.dir, "s.sock");
  const peers: OwnedProcess[] = [];
  const server = createServer((socket) => {
    const process = readPeerProcess(socket);
    peers.push(process);
    socket.on("error", () => undefined).once("close", () => process[Symbol.dispose]());
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  await using _ = { [Symbol.asyncDispose]: () => new Promise<void>((done) => server.close(() => done())) };

  const child = connectFromChild(path);
  await until("a connection", () => peers.length === 1);
  const [peer] = peers;
  if (peer === undefined) throw new Error("no peer");
  expect(peer).toMatchObject({ pid: child.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  expect(peer.pidfd).toBeGreaterThan(2);
  expect(peer.isAlive()).toBe(true);

  using held = holdProcess(peer);
  expect(held?.isAlive()).toBe(true);
  child.kill("SIGKILL");
  await until("its end", () => held?.isAlive() === false);
  await until("its connection's end", () => !peer.isAlive());
  expect(holdProcess(peer)).toBeUndefined();
});
