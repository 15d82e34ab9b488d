import { expect, test } from "vitest";
import { parseDnsDomains } from "../sdk/domains/dns-domains.ts";
import { parseRefusedAddresses } from "../sdk/endpoint-url.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createDnsResolver } from "./dns-resolver.ts";
import type { Dns } from "./dns-resolver.ts";

const NEVER = new AbortController().signal;

interface Zone {
  readonly srv?: Readonly<Record<string, number>>;
  readonly a?: Readonly<Record<string, string>>;
  readonly aaaa?: Readonly<Record<string, string>>;
}

function build(zone: Zone, { hangs = false, named = "*" } = {}) {
  const clock = createFakeClock();
  const asked: string[] = [];
  const absent = () => Promise.reject(Object.assign(new Error("no"), { code: "ENOTFOUND" }));
  const openDns = (): Dns => {
    const cancelled = Promise.withResolvers<never>();
    const answer = <T>(name: string, value: T | undefined): Promise<T> => {
      asked.push(name);
      if (hangs) return cancelled.promise;
      return value === undefined ? absent() : Promise.resolve(value);
    };
    const list = (text: string | undefined) => (text === undefined ? undefined : [text]);
    return {
      resolveSrv: (name) => {
        const port = zone.srv?.[name];
        return answer(name, port === undefined ? undefined : [{ name, port }]);
      },
      resolve4: (name) => answer(name, list(zone.a?.[name])),
      resolve6: (name) => answer(name, list(zone.aaaa?.[name])),
      cancel: () => cancelled.reject(Object.assign(new Error("cancelled"), { code: "ECANCELLED" })),
    };
  };
  const resolver = createDnsResolver({
    registryService: "registry.nsm-system",
    proxyService: "nsmgr-proxy.nsm-system",
    clock,
    refusedAddresses: parseRefusedAddresses("127.0.0.0/8"),
    dnsDomains: parseDnsDomains(named),
    openDns,
  });
  return { clock, asked, resolver };
}

const WEST: Zone = {
  srv: { "registry.nsm-system.west": 5002, "nsmgr-proxy.nsm-system.west": 5004 },
  a: { "registry.nsm-system.west": "192.0.2.1", "nsmgr-proxy.nsm-system.west": "192.0.2.2" },
};

test("the port is that of SRV, the address that of the name", async () => {
  const { resolver } = build(WEST);
  expect(await resolver.registryOf("west", NEVER)).toBe("tcp://192.0.2.1:5002");
  expect(await resolver.proxyOf("west", NEVER)).toBe("tcp://192.0.2.2:5004");
});

test("IPv6 does where there is no IPv4", async () => {
  const name = "registry.nsm-system.six";
  const { resolver } = build({ srv: { [name]: 5002 }, aaaa: { [name]: "2001:db8::1" } });
  expect(await resolver.registryOf("six", NEVER)).toBe("tcp://[2001:db8::1]:5002");
});

test("a domain without a proxy is one without nodes; one without a registry is none", async () => {
  const { resolver } = build({});
  expect(await resolver.proxyOf("nowhere", NEVER)).toBeUndefined();
  await expect(resolver.registryOf("nowhere", NEVER)).rejects.toMatchObject({
    code: "NOT_FOUND",
    reason: "domain-not-found",
  });
});

test("answers are kept for a while, and those who ask at once share one", async () => {
  const { resolver, asked, clock } = build(WEST);
  await Promise.all([resolver.registryOf("west", NEVER), resolver.registryOf("west", NEVER)]);
  const before = asked.length;
  await resolver.registryOf("west", NEVER);
  expect(asked.length).toBe(before);
  await clock.advance(6000);
  await resolver.registryOf("west", NEVER);
  expect(asked.length).toBe(2 * before);
});

test("a name server that hangs costs at most a second, and is asked again soon", async () => {
  const { resolver, clock } = build({}, { hangs: true });
  const answer = resolver.registryOf("west", NEVER);
  const outcome = answer.catch((error: unknown) => error);
  await clock.advance(1000);
  expect(await outcome).toMatchObject({ code: "UNAVAILABLE", reason: "domain-silent" });
});

test("who leaves does not wait, and takes nobody's answer away", async () => {
  const { resolver, clock } = build({}, { hangs: true });
  const leaving = new AbortController();
  const left = resolver.registryOf("west", leaving.signal);
  const stays = resolver.registryOf("west", NEVER);
  leaving.abort(new Error("left"));
  await expect(left).rejects.toThrow("left");
  const outcome = stays.catch((error: unknown) => error);
  await clock.advance(1000);
  expect(await outcome).toMatchObject({ reason: "domain-silent" });
});

test("at most 64 look-ups are under way", async () => {
  const { resolver, clock } = build({}, { hangs: true });
  const all = Array.from({ length: 64 }, (_, i) =>
    resolver.registryOf(`domain-${i}`, NEVER).catch(() => "silent"),
  );
  await expect(resolver.registryOf("one-more", NEVER)).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  await clock.advance(1000);
  expect(new Set(await Promise.all(all))).toEqual(new Set(["silent"]));
});

test.for(["192.0.2.7:5002", "tcp://192.0.2.7:5002"])(
  "a domain that is an address (%s) is its own registry",
  async (domain) => {
    const { resolver, asked } = build({});
    expect(await resolver.registryOf(domain, NEVER)).toBe("tcp://192.0.2.7:5002");
    expect(await resolver.proxyOf(domain, NEVER)).toBeUndefined();
    expect(asked).toEqual([]);
  },
);

test("nobody is led to this host itself", async () => {
  const name = "registry.nsm-system.evil";
  const { resolver } = build({ srv: { [name]: 5002 }, a: { [name]: "127.0.0.1" } });
  await expect(resolver.registryOf("evil", NEVER)).rejects.toMatchObject({ reason: "refused-address" });
  await expect(resolver.registryOf("127.0.0.1:22", NEVER)).rejects.toMatchObject({
    reason: "refused-address",
  });
});

test.for(["none", "north", "north=west"])(
  "with NSM_DNS_DOMAINS=%s nobody asks DNS for west",
  async (named) => {
    const { resolver, asked } = build(WEST, { named });
    await expect(resolver.registryOf("west", NEVER)).rejects.toMatchObject({
      reason: "domain-not-found",
      message: expect.stringContaining("NSM_DNS_DOMAINS"),
    });
    expect(await resolver.proxyOf("west", NEVER)).toBeUndefined();
    await expect(resolver.registryOf("192.0.2.1:5002", NEVER)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(asked).toEqual([]);
  },
);
