/** Addresses of sockets: `unix:///path`, `tcp://host:port`, `tcp://:port`, `host:port`. */
import { NsmError } from "../errors.ts";

export type Address =
  | { readonly kind: "unix"; readonly path: string }
  /** `host` without brackets; empty means every address of the machine, only to listen on. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** Room of `sun_path` (unix(7)) without its closing NUL. */
const MAX_PATH_BYTES = 107;
const SHORTER = "choose a shorter one";
const HOST_PORT = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:/?#@[\]\s]*)):(\d{1,5})$/;

/** Throws INVALID_ARGUMENT `bad-address` that names the url and what is expected. */
export function parseAddress(url: string): Address {
  const address = readAddress(url);
  if ("fault" in address) throw bad(url, address.fault);
  return address;
}

/** Instead of an error, what is wrong with it, for those who name the value themselves. */
export function readAddress(url: string): Address | { readonly fault: string } {
  if (url.startsWith("unix:")) {
    const path = url.startsWith("unix:///") ? url.slice("unix://".length) : url.slice("unix:".length);
    const fault = faultOfPath(path);
    return fault === undefined ? { kind: "unix", path } : { fault };
  }
  const [, v6, name = "", port] = HOST_PORT.exec(url.replace(/^tcp:\/\//, "")) ?? [];
  if (port === undefined || Number(port) > 65535)
    return { fault: "expected unix:///path, tcp://host:port or host:port" };
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

function faultOfPath(path: string): string | undefined {
  if (!path.startsWith("/") || path.startsWith("//"))
    return "expected an absolute path, as unix:///run/nsm/nsmgr.sock";
  if (/\p{Cc}/u.test(path)) return "the path holds a control character";
  return faultOfLength(path, SHORTER);
}

/**
 * Refuses a path that is too long for a unix socket. `remedy`: what makes it shorter. Throws INVALID_ARGUMENT `bad-address`.
 */
export function checkSocketPath(path: string, remedy = SHORTER): void {
  const fault = faultOfLength(path, remedy);
  if (fault !== undefined) throw bad(`unix://${path}`, fault);
}

function faultOfLength(path: string, remedy: string): string | undefined {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MAX_PATH_BYTES) return undefined;
  return `the path of the socket has ${bytes} bytes, expected at most ${MAX_PATH_BYTES}: ${remedy}`;
}

function bad(url: string, why: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-address", `address ${JSON.stringify(url)}: ${why}`);
}
