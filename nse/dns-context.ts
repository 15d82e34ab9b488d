/** Name servers that the endpoint offers to its clients (docs/protocol.md, "Names"). */
import { create } from "@bufbuild/protobuf";
import {
  ConnectionContextSchema,
  DNSConfigSchema,
  DNSContextSchema,
} from "../api/gen/connectioncontext_pb.js";
import type { Element } from "../sdk/chain.ts";
import { parseDomain } from "../sdk/dns/name.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { parseJson } from "../sdk/json.ts";
import type { JsonValue } from "../sdk/json.ts";
import { Limits } from "../sdk/limits.ts";
import { parseIp } from "../sdk/prefix.ts";

/** Name servers and the domains that they are for; no domains: for all names. */
export interface DnsOffer {
  readonly servers: readonly string[];
  readonly domains: readonly string[];
}

/** Reads `[{"dns_server_ips": ["10.0.0.1"], "search_domains": ["my.domain"]}]`. Throws INVALID_ARGUMENT `bad-dns-configs`. */
export function parseDnsOffers(text: string): readonly DnsOffer[] {
  const offers = readOffers(text);
  for (const { servers, domains } of offers) {
    const server = servers.find((each) => parseIp(each) === undefined);
    if (server !== undefined) throw bad(`server ${JSON.stringify(server)} is no address`);
    const domain = domains.find((each) => parseDomain(each) === undefined);
    if (domain !== undefined) throw bad(`search domain ${JSON.stringify(domain)} is no name`);
  }
  const count = (list: readonly (readonly string[])[]) => list.flat().length;
  if (
    offers.length > Limits.dnsConfigs ||
    count(offers.map(({ servers }) => servers)) > Limits.dnsServers ||
    count(offers.map(({ domains }) => domains)) > Limits.searchDomains
  )
    throw bad(
      `more than ${Limits.dnsConfigs} configurations, ${Limits.dnsServers} servers or ${Limits.searchDomains} search domains`,
    );
  return offers;
}

function readOffers(text: string): readonly DnsOffer[] {
  const value = readJson(text);
  if (value === null) return [];
  if (!Array.isArray(value)) throw bad(FORMAT);
  return value.map((config: JsonValue): DnsOffer => {
    if (!(config instanceof Map)) throw bad(FORMAT);
    const unknown = [...config.keys()].find((key) => key !== "dns_server_ips" && key !== "search_domains");
    if (unknown !== undefined) throw bad(`${JSON.stringify(unknown)} is unknown, ${FORMAT}`);
    const servers = textsOf(config.get("dns_server_ips") ?? null);
    if (servers.length === 0) throw bad(`a configuration lacks dns_server_ips, ${FORMAT}`);
    return { servers, domains: textsOf(config.get("search_domains") ?? null) };
  });
}

const FORMAT = 'expected JSON [{"dns_server_ips":["10.0.0.1"],"search_domains":["my.domain"]}]';

function readJson(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (error) {
    throw bad(`${FORMAT}: ${messageOf(error)}`);
  }
}

function textsOf(value: JsonValue): readonly string[] {
  if (value === null) return [];
  const texts = Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
  if (!Array.isArray(value) || texts.length < value.length) throw bad(FORMAT);
  return texts;
}

function bad(fault: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-dns-configs", `DNS configurations: ${fault}`);
}

/** Appends those that the connection lacks; the order of servers and domains does not count. */
export function dnsContext(offers: readonly DnsOffer[]): Element {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const context = (connection.context ??= create(ConnectionContextSchema));
      const { configs } = (context.dnsContext ??= create(DNSContextSchema));
      const known = new Set(configs.map((each) => keyOf(each.dnsServerIps, each.searchDomains)));
      for (const { servers, domains } of offers)
        if (!known.has(keyOf(servers, domains)))
          configs.push(create(DNSConfigSchema, { dnsServerIps: [...servers], searchDomains: [...domains] }));
      return await next.request(request, ctx);
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}

function keyOf(servers: readonly string[], domains: readonly string[]): string {
  return JSON.stringify([servers.toSorted(), domains.toSorted()]);
}
