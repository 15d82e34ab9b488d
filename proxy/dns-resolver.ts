/** Domains found by DNS: SRV for the port, then the address of the same name (docs/protocol.md, "Domains"). */
import { Resolver } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../sdk/clock.ts";
import type { DnsDomains } from "../sdk/domains/dns-domains.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { checkTcpUrl } from "../sdk/endpoint-url.ts";
import type { RefusedAddresses } from "../sdk/endpoint-url.ts";
import { NsmError, asNsmError, errnoOf, messageOf } from "../sdk/errors.ts";
import { LruMap } from "../sdk/lru.ts";

/** For SRV and address together; a domain that does not answer costs its caller no more. */
const PATIENCE_MS = 1000;
/** Answers live this long, failures a fifth of it: a domain that moves is found again soon. */
const FRESH_MS = 5000;
/** Domains are what clients write. */
const MOST_KNOWN = 4096;
const MOST_PENDING = 64;

/** The part of `node:dns` that is used. */
export interface Dns {
  resolveSrv(name: string): Promise<readonly { readonly name: string; readonly port: number }[]>;
  resolve4(name: string): Promise<readonly string[]>;
  resolve6(name: string): Promise<readonly string[]>;
  cancel(): void;
}

export interface DnsResolverOptions {
  /** Names in front of the domain. */
  readonly registryService: string;
  readonly proxyService: string;
  /** Which domains are looked up at all. */
  readonly dnsDomains: Pick<DnsDomains, "has">;
  readonly clock: Clock;
  readonly refusedAddresses: RefusedAddresses;
  /** For one look-up. */
  readonly openDns?: () => Dns;
}

interface Known {
  readonly answer: Promise<string | undefined>;
  /** Monotonic. */
  untilMs: number;
}

/** A domain that is itself an address (`10.0.0.1:5002`, `tcp://10.0.0.1:5002`) is its own registry, and has no proxy. */
export function createDnsResolver(options: DnsResolverOptions): DomainResolver {
  const { clock, refusedAddresses, dnsDomains } = options;
  const openDns = options.openDns ?? (() => new Resolver({ timeout: PATIENCE_MS, tries: 1 }));
  const known = new LruMap<string, Known>(MOST_KNOWN);
  let pending = 0;

  const lookUp = async (name: string): Promise<string | undefined> => {
    if (pending >= MOST_PENDING)
      throw new NsmError(
        "RESOURCE_EXHAUSTED",
        "too-many-domains",
        `${MOST_PENDING} look-ups of domains are under way: wait for them`,
      );
    const dns = openDns();
    using timer = clock.timer(PATIENCE_MS, () => dns.cancel());
    void timer;
    pending++;
    try {
      const [service] = await dns.resolveSrv(name);
      if (service === undefined) return undefined;
      const address = await addressOf(dns, name);
      return address && `tcp://${isIP(address) === 6 ? `[${address}]` : address}:${service.port}`;
    } catch (error) {
      if (isAbsence(error)) return undefined;
      throw silent(name, error);
    } finally {
      pending--;
    }
  };
  const urlOf = (name: string): Promise<string | undefined> => {
    const before = known.get(name);
    if (before !== undefined && before.untilMs > clock.monotonic()) return before.answer;
    const asked: Known = { answer: lookUp(name), untilMs: Infinity };
    known.set(name, asked);
    const keep = (ms: number) => (asked.untilMs = clock.monotonic() + ms);
    asked.answer.then(
      (url) => keep(url === undefined ? FRESH_MS / 5 : FRESH_MS),
      () => keep(FRESH_MS / 5),
    );
    return asked.answer;
  };
  const checked = (url: string, domain: string): string => {
    checkTcpUrl(url, refusedAddresses, `domain ${JSON.stringify(domain)}`);
    return url;
  };

  const refuseUnnamed = (domain: string) => {
    if (dnsDomains.has(domain)) return;
    throw new NsmError(
      "NOT_FOUND",
      "domain-not-found",
      `no domain ${JSON.stringify(domain)} is known here: link it (nsm link), or name it in NSM_DOMAINS_PATH, or in NSM_DNS_DOMAINS if DNS knows it`,
    );
  };

  return {
    async registryOf(domain, signal) {
      refuseUnnamed(domain);
      const url =
        literalUrl(domain) ?? (await unlessAborted(urlOf(`${options.registryService}.${domain}`), signal));
      if (url !== undefined) return checked(url, domain);
      const name = `${options.registryService}.${domain}`;
      throw new NsmError(
        "NOT_FOUND",
        "domain-not-found",
        `domain ${JSON.stringify(domain)}: DNS knows no registry ${name} (SRV and A or AAAA records); is the name right, and does the DNS of this host know it?`,
      );
    },
    async proxyOf(domain, signal) {
      if (!dnsDomains.has(domain)) return undefined;
      if (literalUrl(domain) !== undefined) return undefined;
      const url = await unlessAborted(urlOf(`${options.proxyService}.${domain}`), signal);
      return url && checked(url, domain);
    },
  };
}

function literalUrl(domain: string): string | undefined {
  const text = domain.startsWith("tcp://") ? domain.slice("tcp://".length) : domain;
  const [, host = ""] = /^(\[[^\]]*\]|[^:/]*):\d{1,5}$/.exec(text) ?? [];
  return isIP(host.replaceAll(/[[\]]/g, "")) === 0 ? undefined : `tcp://${text}`;
}

async function addressOf(dns: Dns, name: string): Promise<string | undefined> {
  const [v4, v6] = await Promise.allSettled([dns.resolve4(name), dns.resolve6(name)]);
  const found = [v4, v6].flatMap((result) => (result.status === "fulfilled" ? [...result.value] : []));
  if (found.length > 0) return found[0];
  for (const result of [v4, v6])
    if (result.status === "rejected" && !isAbsence(result.reason)) throw result.reason;
  return undefined;
}

/** The name is not there, or has no such record. */
function isAbsence(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "ENOTFOUND" || code === "ENODATA";
}

function silent(name: string, error: unknown): NsmError {
  const text = `no answer about ${name} within ${PATIENCE_MS} ms or a refusal (${messageOf(error)}): does a name server of this host know the domain?`;
  return new NsmError("UNAVAILABLE", "domain-silent", text, error);
}

function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () =>
      reject(asNsmError(signal.reason, "CANCELLED", "caller-left", "the look-up of a domain"));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    answer.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
