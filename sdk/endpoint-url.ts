/** Where an endpoint may be said to be (docs/protocol.md, "Registry"). Whoever registers writes the URL, and daemons dial it. */
import type { Variable } from "./config.ts";
import { NsmError } from "./errors.ts";
import { contains, parseIp, parsePrefix, rangeOf } from "./prefix.ts";
import type { IpRange } from "./prefix.ts";

/** This host, its links (also where clouds serve credentials) and groups: unspecified, loopback, link-local, multicast, reserved. */
const REFUSED =
  "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,224.0.0.0/4,240.0.0.0/4,::/128,::1/128,fe80::/10,ff00::/8";

const TCP_URL = /^tcp:\/\/(\[[^\]]*\]|[^[\]:/?#@\s]*):(\d{1,5})$/;

/** Networks that nobody is dialled in. Empty: any address and any name will do. */
export type RefusedAddresses = readonly IpRange[];

export function refusedAddresses(): Variable<RefusedAddresses> {
  return {
    env: "NSM_REFUSED_ADDRESSES",
    type: "prefix list",
    fallback: REFUSED,
    help: "networks that no URL of an endpoint may lead to; empty allows every address, and names",
    parse: parseRefusedAddresses,
  };
}

/** Throws an Error that names what is no prefix. */
export function parseRefusedAddresses(text: string): RefusedAddresses {
  if (text === "") return [];
  return text.split(",").map((item) => {
    const prefix = parsePrefix(item);
    if (prefix === undefined) throw new Error(`${JSON.stringify(item)} is no prefix`);
    return rangeOf(prefix);
  });
}

/**
 * Refuses a URL that is no `tcp://address:port`, or leads to an address that is not to be dialled. `what`: whose it is, for the message.
 * Throws INVALID_ARGUMENT `bad-endpoint-url`, PERMISSION_DENIED `refused-address`.
 */
export function checkTcpUrl(url: string, refused: RefusedAddresses, what: string): void {
  const [, host = "", port = ""] = TCP_URL.exec(url) ?? [];
  const isPort = Number(port) > 0 && Number(port) <= 65535;
  const address = parseIp(host.startsWith("[") ? host.slice(1, -1) : host);
  if (!isPort || (address === undefined && (refused.length > 0 || host === "" || host.startsWith("["))))
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-endpoint-url",
      `${what} has url ${JSON.stringify(url)}: expected tcp://address:port${refused.length > 0 ? " with an address, not a name" : ""}`,
    );
  if (address !== undefined && refused.some((range) => contains(range, address)))
    throw new NsmError(
      "PERMISSION_DENIED",
      "refused-address",
      `${what} has url ${JSON.stringify(url)}: nobody is dialled there (NSM_REFUSED_ADDRESSES); register an address of the node's network`,
    );
}
