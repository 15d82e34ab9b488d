/** Addresses of sockets: `unix:///path`, `tcp://host:port`, `tcp://:port`, `host:port`. */
import { NsmError } from "../errors.ts";

export type Address =
  | { readonly kind: "unix"; readonly path: string }
  /** `host` without brackets; empty means every address of the machine, only to listen on. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** Room of `sun_path` (unix(7)) without its closing NUL. */
const MAX_PATH_BYTES = 107;
const HOST_PORT = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:/?#@[\]\s]*)):(\d{1,5})$/;

/** Throws INVALID_ARGUMENT `bad-address` that names the url and what is expected. */
export function parseAddress(url: string): Address {
  if (url.startsWith("unix:")) return { kind: "unix", path: parseUnixPath(url) };
  const [, v6, name = "", port] = HOST_PORT.exec(url.replace(/^tcp:\/\//, "")) ?? [];
  if (port === undefined || Number(port) > 65535)
    throw bad(url, "expected unix:///path, tcp://host:port or host:port");
  return { kind: "tcp", host: v6 ?? name, port: Number(port) };
}

/** The canonical text: `unix:///path` or `tcp://host:port`. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix://${address.path}`;
  return `tcp://${hostPort(address)}`;
}

/** The target name of grpc-js, which would look for other meanings in a bare `host:port`. */
export function grpcTarget(address: Address): string {
  return address.kind === "unix" ? `unix:${address.path}` : `dns:${hostPort(address)}`;
}

function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function parseUnixPath(url: string): string {
  const path = url.startsWith("unix:///") ? url.slice("unix://".length) : url.slice("unix:".length);
  if (!path.startsWith("/") || path.startsWith("//"))
    throw bad(url, "a unix socket needs an absolute path: unix:///run/nsm/nsmgr.sock");
  if (/\p{Cc}/u.test(path)) throw bad(url, "the path holds a control character");
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw bad(url, `the path has ${Buffer.byteLength(path)} bytes, at most ${MAX_PATH_BYTES} fit`);
  return path;
}

function bad(url: string, why: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-address", `address ${JSON.stringify(url)}: ${why}`);
}
