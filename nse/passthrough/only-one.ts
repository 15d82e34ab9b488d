/**
 * One endpoint that passes on per network namespace: its rules, routes and nftables table are known by numbers and names that another one there
 * would take for what an earlier life left (docs/protocol.md, "Chaining").
 *
 * An abstract unix socket is the lock (unix(7)): such names belong to the network namespace, and the kernel frees them with the process.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import { closeFd, connectSocket, openSocket, peerCredentials } from "../../sdk/native.ts";

const NAME = "\0nsm-passthrough";
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0x800;

/** Until disposed. Throws FAILED_PRECONDITION `namespace-taken` that names the process that is there. */
export async function beOnlyOne(): Promise<AsyncDisposable> {
  const server = createServer((socket) => socket.destroy());
  try {
    server.listen(NAME);
    await once(server, "listening");
  } catch (error) {
    if (errnoOf(error) !== "EADDRINUSE") throw error;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "namespace-taken",
      `another endpoint that passes on lives in this network namespace (${holder()}): start this one in a namespace of its own, or end the other one first`,
      error,
    );
  }
  server.on("error", () => undefined); // connections are of no interest
  return {
    async [Symbol.asyncDispose]() {
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      await closed;
    },
  };
}

function holder(): string {
  const address = Buffer.alloc(2 + NAME.length);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(NAME, 2, "latin1");
  const fd = openSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    connectSocket(fd, address);
    const { pid, uid, pidfd } = peerCredentials(fd);
    if (pidfd !== undefined) closeFd(pidfd);
    // 0: it is of another pid namespace.
    return pid === 0 ? `user ${uid}` : `process ${pid}${nameOf(pid)}, user ${uid}`;
  } catch {
    return "unknown process"; // it has the name and does not listen, or has ended meanwhile
  } finally {
    closeFd(fd);
  }
}

function nameOf(pid: number): string {
  try {
    return ` ${JSON.stringify(readFileSync(`/proc/${pid}/comm`, "utf8").trim())}`;
  } catch {
    return "";
  }
}
