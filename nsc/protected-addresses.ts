/** Addresses that a client keeps on its own network, whatever routes its wires have (docs/protocol.md, "What an answer may ask for"). */
import { kindOf } from "../sdk/address-kind.ts";
import { formatAddress, parseIp } from "../sdk/prefix.ts";
import { SYSTEM_RESOLV_CONF, originalOf, parseResolvConf, readConf } from "./resolv-conf.ts";

/** In the list: what this client knows of its own network. */
const AUTO = "auto";

/** `auto`, `none`, or addresses beside or instead of them. Throws a text that names what is none. */
export function parseProtectedAddresses(text: string): readonly string[] {
  if (text === "" || text === "none") return [];
  return text.split(",").map((item) => {
    const address = parseIp(item);
    if (item !== AUTO && address === undefined)
      throw new Error(`${JSON.stringify(item)} is no IP address: expected auto, none, or addresses`);
    return address === undefined ? AUTO : formatAddress(address);
  });
}

export interface OwnNetwork {
  /** Of the resolver that the file may name instead of the pod's servers. */
  readonly resolver: string;
  /** resolv.conf; undefined: the system's. */
  readonly resolvConf: string | undefined;
  /** Of the API server; undefined outside Kubernetes. A name protects nothing. */
  readonly apiServer: string | undefined;
}

/** The list with the pod's name servers and API server in the place of `auto`, each once, without loopback and the like. */
export function protectedAddresses(list: readonly string[], own: OwnNetwork): readonly string[] {
  const known = list.includes(AUTO) ? [...nameServers(own), own.apiServer ?? ""] : [];
  const all = [...known, ...list].map(parseIp).filter((address) => address !== undefined);
  const reachable = all.filter((address) =>
    ["unicast", "uniqueLocal", "linkLocal"].includes(kindOf(address)),
  );
  return [...new Set(reachable.map(formatAddress))];
}

function nameServers({ resolver, resolvConf = SYSTEM_RESOLV_CONF }: OwnNetwork): readonly string[] {
  try {
    const text = readConf(resolvConf);
    return parseResolvConf(originalOf(text, resolver) ?? text).servers.filter(
      (server) => server !== resolver,
    );
  } catch {
    return []; // whoever resolves names says that the file cannot be read
  }
}
