/** What of an endpoint's DNS configurations a client uses (docs/protocol.md, "Names"). Pure. */
import type { Connection } from "../api/gen/connection_pb.js";
import { isWithin, parseDomain } from "../sdk/dns/name.ts";
import type { ServerGroup } from "../sdk/dns/routing.ts";
import { formatAddress, parseIp, parsePrefix } from "../sdk/prefix.ts";
import type { IpAddress } from "../sdk/prefix.ts";

export interface Accepted {
  readonly groups: readonly ServerGroup[];
  /** What is not used, and why, for the log. */
  readonly refused: readonly string[];
}

/**
 * Servers must be addresses of other hosts, and not the client's own ones; domains must be names, and neither the pod's own
 * domains nor below them. A configuration without a usable server, or whose domains are all refused, is left out.
 *
 * `ownDomains`: as `parseDomain` writes them; `acceptedDomains`: within those, and a wire's to answer all the same.
 */
export function acceptDnsContext(
  connection: Connection,
  ownDomains: readonly string[],
  acceptedDomains: readonly string[] = [],
): Accepted {
  const isPods = (domain: string) => ownDomains.some((each) => isWithin(domain, each));
  const isAccepted = (domain: string) => acceptedDomains.some((each) => isWithin(domain, each));
  const { ipContext, dnsContext } = connection.context ?? {};
  const own = new Set((ipContext?.srcIpAddrs ?? []).map((text) => canonical(parsePrefix(text))));
  const refused: string[] = [];
  const groups: ServerGroup[] = [];
  for (const config of dnsContext?.configs ?? []) {
    const servers = config.dnsServerIps.flatMap((text) => {
      const address = parseIp(text);
      const reason =
        address === undefined
          ? "is no address"
          : own.has(canonical(address))
            ? "is the client itself"
            : unusable(address);
      if (reason === undefined && address !== undefined) return [formatAddress(address)];
      refused.push(`server ${JSON.stringify(text)} ${reason}`);
      return [];
    });
    const domains = config.searchDomains.flatMap((text) => {
      const domain = parseDomain(text);
      const isTaken = domain !== undefined && isPods(domain) && !isAccepted(domain);
      if (domain !== undefined && !isTaken) return [domain];
      refused.push(`domain ${JSON.stringify(text)} ${isTaken ? "is the pod's own" : "is no name"}`);
      return [];
    });
    // Without domains it would be for all names, which is more than it was offered for.
    if (servers.length > 0 && (domains.length > 0 || config.searchDomains.length === 0))
      groups.push({
        servers: [...new Set(servers)],
        domains: [...new Set(domains)],
        isOwn: false,
        ...(domains.some(isPods) && { isAccepted: true }),
      });
  }
  return { groups, refused };
}

function canonical(address: IpAddress | undefined): string {
  return address === undefined ? "" : formatAddress(address);
}

/** Why no other host can have this address (RFC 1122 §3.2.1.3, RFC 4291 §2.4), undefined when one can. */
function unusable({ family, address }: IpAddress): string | undefined {
  if (address === 0n) return "is unspecified";
  if (family === 4) {
    if (address >> 24n === 127n) return "is a loopback address";
    return address >> 28n >= 14n ? "is no address of one host" : undefined;
  }
  if (address === 1n) return "is a loopback address";
  if (address >> 120n === 0xffn) return "is no address of one host";
  return address >> 118n === 0xfe80n >> 6n ? "is link-local" : undefined;
}
