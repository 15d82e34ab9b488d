/** Addresses of gRPC servers: URLs in records, dial targets, published URLs (docs/protocol.md, "Network service URLs"). */
import { parseGoUrl } from "./go-url.ts";
import { parsePrefix, formatAddress } from "./prefix.ts";

/** What to dial for a URL: `tcp://host:port` becomes `host:port`, every other text stays as it is. */
export function dialTarget(url: string): string {
  if (!/^tcp:/i.test(url)) return url;
  return parseGoUrl(url).host;
}

export interface NetworkAddress {
  readonly network: "tcp" | "unix";
  /** `host:port`, or the path of a socket. */
  readonly address: string;
  /** The same as a URL. */
  readonly url: string;
}

/** A dial target taken apart: `unix:` and `unix://` mean a socket, anything else is TCP. */
export function targetToAddress(target: string): NetworkAddress {
  if (target.startsWith("unix:")) {
    const rest = target.slice("unix:".length);
    const address = rest.startsWith("//") ? rest.slice(2) : rest;
    return { network: "unix", address, url: `unix://${address}` };
  }
  const url = target === "" ? "tcp:" : `tcp://${escapeHost(target)}`;
  return { network: "tcp", address: target, url };
}

function escapeHost(host: string): string {
  return host.replaceAll(/[^A-Za-z0-9!$&'()*+,;=:[\]<>"\-_.~]/gu, (char) =>
    Buffer.from(char)
      .toString("hex")
      .toUpperCase()
      .replaceAll(/../g, (byte) => `%${byte}`),
  );
}

/**
 * The URL under which others reach a server that listens on `listenOn`. Only `tcp://:port` needs one: the first IPv4 address of
 * this host that is not loopback, else the first global IPv6 address.
 *
 * `addresses`: this host's addresses with prefix length (`10.0.0.1/8`), in the kernel's order.
 */
export function publicUrl(listenOn: string, addresses: readonly string[]): string {
  if (!/^tcp:\/\/:/i.test(listenOn)) return listenOn;
  const known = addresses.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined);
  const best =
    known.find(({ family, address }) => family === 4 && address >> 24n !== LOOPBACK_V4) ??
    known.find(({ family, address }) => family === 6 && isGlobal(address));
  if (best === undefined) return listenOn;
  const host = formatAddress(best);
  return `tcp://${best.family === 6 ? `[${host}]` : host}${listenOn.slice("tcp://".length)}`;
}

const LOOPBACK_V4 = 127n;

/** Neither unspecified, loopback, link-local nor multicast (RFC 4291 §2.4). */
function isGlobal(address: bigint): boolean {
  return address > 1n && address >> 118n !== 0xfe80n >> 6n && address >> 120n !== 0xffn;
}
