/** Listening sockets: TCP ports, and unix sockets that take over a stale file of ours and never anybody else's. */
import { chmod, lstat, mkdir, unlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { dirname } from "node:path";
import { NsmError, errnoOf, messageOf } from "../errors.ts";
import { checkSocketPath, formatAddress } from "./address.ts";
import type { Address } from "./address.ts";

export interface Listener extends AsyncDisposable {
  /** With the port that was really taken. */
  readonly address: Address;
}

/**
 * Listens and gives each accepted socket, unread, to `onSocket`. Closing removes the socket file and leaves the accepted sockets.
 *
 * Throws ALREADY_EXISTS `address-in-use` (somebody listens there), PERMISSION_DENIED `foreign-socket` (another user's file),
 * FAILED_PRECONDITION `not-a-socket`, INVALID_ARGUMENT `bad-address` (a path too long for a socket), INVALID_ARGUMENT or PERMISSION_DENIED `cannot-listen`; nothing is deleted then.
 */
export async function openListener(
  address: Address,
  socketMode: number,
  onSocket: (socket: Socket) => void,
): Promise<Listener> {
  if (address.kind === "unix") await makeWay(address.path);
  const server = createServer(onSocket);
  await listen(server, address);
  // An error after this is one of accept(2), out of descriptors for one: Node goes on accepting.
  server.on("error", () => undefined);
  if (address.kind === "unix") await chmod(address.path, socketMode);
  return {
    address: boundAddress(server, address),
    // Not server.close's callback: it waits for every accepted socket.
    [Symbol.asyncDispose]: () => {
      if (server.listening) server.close();
      return Promise.resolve();
    },
  };
}

function listen(server: Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => reject(listenError(address, error)));
    if (address.kind === "unix") server.listen({ path: address.path, backlog: 511 }, resolve);
    else if (address.host === "") server.listen({ port: address.port, backlog: 511 }, resolve);
    else server.listen({ port: address.port, host: address.host, backlog: 511 }, resolve);
  });
}

function listenError(address: Address, error: unknown): NsmError {
  const url = formatAddress(address);
  const errno = errnoOf(error);
  if (errno === "EADDRINUSE") return inUse(url);
  const code = errno === "EACCES" || errno === "EPERM" ? "PERMISSION_DENIED" : "INVALID_ARGUMENT";
  return new NsmError(code, "cannot-listen", `cannot listen on ${url}: ${messageOf(error)}`, error);
}

function boundAddress(server: Server, address: Address): Address {
  const bound = server.address();
  if (address.kind === "unix" || bound === null || typeof bound === "string") return address;
  return { kind: "tcp", host: address.host === "" ? bound.address : address.host, port: bound.port };
}

/** Makes the directory, and removes a socket file of ours on which nobody listens. */
async function makeWay(path: string): Promise<void> {
  checkSocketPath(path);
  await makeDirectory(dirname(path));
  const found = await lstatOrNothing(path);
  if (found === undefined) return;
  if (!found.isSocket())
    throw new NsmError(
      "FAILED_PRECONDITION",
      "not-a-socket",
      `${path} exists and is not a socket; remove it or choose another address`,
    );
  if (found.uid !== process.geteuid?.())
    throw new NsmError(
      "PERMISSION_DENIED",
      "foreign-socket",
      `${path} is a socket of user ${found.uid}; remove it or choose another address`,
    );
  if (await isListening(path)) throw inUse(`unix://${path}`);
  await unlink(path);
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o755 });
  } catch (error) {
    throw new NsmError(
      "PERMISSION_DENIED",
      "cannot-listen",
      `cannot make the socket's directory ${path}: ${messageOf(error)}`,
      error,
    );
  }
}

async function lstatOrNothing(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new NsmError(
      "PERMISSION_DENIED",
      "cannot-listen",
      `cannot look at ${path}: ${messageOf(error)}`,
      error,
    );
  }
}

/** Anything but a refused connection counts as somebody who listens: when in doubt, nothing is deleted. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error) => resolve(errnoOf(error) !== "ECONNREFUSED"));
  });
}

function inUse(url: string): NsmError {
  return new NsmError(
    "ALREADY_EXISTS",
    "address-in-use",
    `${url} is in use: another process listens there; stop it or choose another address`,
  );
}
