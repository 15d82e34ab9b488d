import { create } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../errors.ts";
import { contains, parsePrefix, rangeOf } from "../prefix.ts";
import type { IpAddress, IpRange } from "../prefix.ts";
import { createGroup, createIpam, parsePrefixGroups } from "./group.ts";
import { copyOf } from "./ipam.ts";
import type { Ipam } from "./ipam.ts";
import { createPointToPoint } from "./point-to-point.ts";
import { IpPool, mergeRanges } from "./pool.ts";
import { createSinglePoint } from "./single-point.ts";
import { createVl3 } from "./vl3.ts";

const contextOf = (members: Parameters<typeof create<typeof IPContextSchema>>[1] = {}) =>
  create(IPContextSchema, members);

/** One request that succeeds; returns the context that the client then has. */
function connect(ipam: Ipam, id: string, context = contextOf()): IPContext {
  ipam.request(id, context).commit(context);
  return context;
}

const isExhausted = expect.objectContaining({ code: "RESOURCE_EXHAUSTED", reason: "ipam-exhausted" });

describe("a failed request", () => {
  it("gives its pair back, and the connection is unknown again", () => {
    const ipam = createPointToPoint(["10.0.0.0/31"]);
    ipam.request("a", contextOf()).rollback();
    expect(connect(ipam, "b").srcIpAddrs).toEqual(["10.0.0.1/32"]);
    expect(() => ipam.request("a", contextOf())).toThrowError(isExhausted);
  });

  it("leaves the former pair to a connection that was to move", () => {
    const ipam = createPointToPoint(["10.0.0.0/29"]);
    const context = connect(ipam, "a");
    const moving = contextOf({ ...context, excludedPrefixes: ["10.0.0.0/32"] });
    ipam.request("a", moving).rollback();
    expect(moving.dstIpAddrs).toEqual(["10.0.0.1/32"]);
    expect(connect(ipam, "a").dstIpAddrs).toEqual(["10.0.0.0/32"]);
    expect(connect(ipam, "b").dstIpAddrs).toEqual(["10.0.0.2/32"]);
  });

  it("that found no address changes neither pool nor context", () => {
    const ipam = createGroup([createPointToPoint(["10.0.0.0/24"]), createPointToPoint(["fd00::/127"])]);
    connect(ipam, "a");
    const context = contextOf();
    expect(() => ipam.request("b", context)).toThrowError(isExhausted);
    expect(context).toEqual(contextOf());
    ipam.close("a");
    expect(connect(ipam, "c").dstIpAddrs).toEqual(["10.0.0.0/32", "fd00::/128"]);
  });

  it("of a vL3 client takes no address for good", () => {
    const ipam = createVl3();
    expect(() => ipam.request("a", contextOf())).toThrowError(
      expect.objectContaining({ reason: "ipam-not-ready" }),
    );
    ipam.reset("10.0.0.0/31", []);
    ipam.request("a", contextOf()).rollback();
    expect(connect(ipam, "a").srcIpAddrs).toEqual(["10.0.0.1/32"]);
  });
});

describe("exhaustion", () => {
  it("names the prefixes and what to do", () => {
    const ipam = createPointToPoint(["10.0.0.0/32", "fd00::/128"]);
    expect(() => ipam.request("a", contextOf({ excludedPrefixes: ["fd00::/8"] }))).toThrowError(
      /10\.0\.0\.0\/32, fd00::\/128 outside the 1 excluded prefixes .* larger prefix/,
    );
  });

  it("by exclusions ends with them, in every kind and family", () => {
    for (const make of [createPointToPoint, createSinglePoint]) {
      const ipam = make(["10.0.0.0/29"]);
      expect(() => ipam.request("a", contextOf({ excludedPrefixes: ["0.0.0.0/0"] }))).toThrowError(
        isExhausted,
      );
      expect(connect(ipam, "a", contextOf({ excludedPrefixes: ["::/0"] })).srcIpAddrs).toHaveLength(1);
    }
  });
});

describe("the endpoint's configuration", () => {
  it.each([
    ["10.0.0.0/24", [["10.0.0.0/24"]]],
    ["10.0.0.0/24,fd00::/64", [["10.0.0.0/24"], ["fd00::/64"]]],
    ["[10.0.0.0/24, 10.1.0.0/24],[fd00::/64]", [["10.0.0.0/24", "10.1.0.0/24"], ["fd00::/64"]]],
  ])("%s means groups", (text, groups) => expect(parsePrefixGroups(text)).toEqual(groups));

  it.each([
    "",
    "[]",
    "10.0.0.0",
    "10.0.0.0/33",
    "[10.0.0.0/8",
    "10.0.0.0/8]",
    "10.0.0.0/8,",
    "[10.0.0.0/8][::/0]",
  ])("%j is refused", (text) => {
    expect(() => parsePrefixGroups(text)).toThrowError(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });

  it("strict drops what a client brings from elsewhere, in both families", () => {
    const ipam = createIpam([["10.0.0.0/24"], ["fd00::/64"]], "strict");
    const moved = connect(
      ipam,
      "a",
      contextOf({ srcIpAddrs: ["192.0.2.1/32"], dstIpAddrs: ["192.0.2.2/32"] }),
    );
    expect(moved.srcIpAddrs).toEqual(["10.0.0.1/32", "fd00::1/128"]);
    expect(connect(ipam, "a", contextOf(moved))).toEqual(moved);
  });
});

describe("strict", () => {
  it("lets a client bring an address of ours once, and another one when it is given up", () => {
    const ipam = createIpam([["10.0.0.0/29"]], "strict");
    const context = connect(ipam, "a", contextOf({ srcIpAddrs: ["10.0.0.6/32"] }));
    expect(context.srcIpAddrs).toEqual(["10.0.0.6/32", "10.0.0.1/32"]);
    expect(connect(ipam, "b", contextOf({ srcIpAddrs: ["10.0.0.6/32"] })).srcIpAddrs).toEqual([
      "10.0.0.3/32",
    ]);
    expect(connect(ipam, "a", context).srcIpAddrs).toEqual(["10.0.0.1/32"]);
    const c = connect(ipam, "c", contextOf({ srcIpAddrs: ["10.0.0.6/32"] }));
    expect(c.srcIpAddrs).toEqual(["10.0.0.6/32", "10.0.0.5/32"]);
  });
});

describe("a pool", () => {
  it("holds exactly the addresses of a set", () => {
    const range = fc
      .tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 12 }))
      .map(([first, more]) => ({ family: 4 as const, first: BigInt(first), last: BigInt(first + more) }));
    const step = fc.record({
      op: fc.constantFrom("add", "remove", "lowest", "take"),
      range,
      excluded: fc.array(range),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const pool = new IpPool();
        const model = new Set<bigint>();
        for (const { op, range, excluded } of steps) {
          const members = Array.from(
            { length: Number(range.last - range.first) + 1 },
            (_, i) => range.first + BigInt(i),
          );
          if (op === "add") for (const address of members) model.add(address);
          if (op === "remove") for (const address of members) model.delete(address);
          if (op === "add") pool.add(range);
          if (op === "remove") pool.remove(range);
          const isFree = model.has(range.first);
          if (op === "take") model.delete(range.first);
          expect(op !== "take" || pool.take({ family: 4, address: range.first }) === isFree).toBe(true);
          const outside = [...model].filter(
            (address) => !excluded.some((out) => contains(out, { family: 4, address })),
          );
          const lowest = outside.sort((a, b) => Number(a - b))[0];
          expect(pool.lowest(mergeRanges(excluded))?.address).toBe(lowest);
          expect(pool.has(range)).toBe(members.every((address) => model.has(address)));
        }
      }),
      { numRuns: 500 },
    );
  });
});

/** A step in the life of six clients and their endpoint. */
interface Step {
  readonly op: "request" | "fail" | "close" | "restart";
  readonly client: string;
  /** Addresses of the pool, by number. */
  readonly excluded: readonly number[];
  /** Client's and endpoint's address that a new client has from elsewhere. */
  readonly brings: readonly [number, number] | undefined;
}

const step: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom("request", "request", "request", "fail", "close", "restart"),
  client: fc.constantFrom("a", "b", "c", "d", "e", "f"),
  excluded: fc.array(fc.nat(7), { maxLength: 3 }),
  brings: fc.option(fc.tuple(fc.nat(7), fc.nat(7)), { nil: undefined, freq: 6 }),
});

/** A pool of eight. */
const families = [
  { prefix: "10.9.8.0/29", host: (n: number) => `10.9.8.${n}/32` },
  { prefix: "fd00::8/125", host: (n: number) => `fd00::${(8 + n).toString(16)}/128` },
] as const;

type Host = (typeof families)[number]["host"];

/** The clients' side: what each open connection has, and which pair the endpoint gave it. */
class Clients {
  readonly contexts = new Map<string, IPContext>();
  readonly pairs = new Map<string, readonly [string, string]>();

  /** False when the request fails, by us or behind us; nothing has changed for the client then. */
  request(ipam: Ipam, { op, client, excluded, brings }: Step, host: Host): boolean {
    const context = contextOf({ excludedPrefixes: excluded.map(host) });
    const had = this.contexts.get(client);
    if (had !== undefined) Object.assign(context, copyOf(had));
    else if (brings !== undefined) {
      context.srcIpAddrs.push(host(brings[0]));
      context.dstIpAddrs.push(host(brings[1]));
    }
    try {
      const lease = ipam.request(client, context);
      if (op === "fail") lease.rollback();
      else lease.commit(context);
    } catch (error) {
      if (error instanceof NsmError && error.reason === "ipam-exhausted") return false;
      throw error;
    }
    if (op === "fail") return false;
    this.contexts.set(client, context);
    // Routes are only to what the endpoint gave, and the newest come last.
    this.pairs.set(client, [context.dstRoutes.at(-1)?.prefix ?? "", context.srcRoutes.at(-1)?.prefix ?? ""]);
    return true;
  }

  forget(client: string): void {
    this.contexts.delete(client);
    this.pairs.delete(client);
  }
}

function expectOneOwnerEach({ pairs }: Clients, range: IpRange): void {
  const owned = [...pairs.values()].flat();
  expect(new Set(owned).size).toBe(2 * pairs.size);
  expect(owned.every((text) => contains(range, addressOf(text)))).toBe(true);
}

function addressOf(text: string): IpAddress {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw new Error(`no prefix: ${text}`);
  return prefix;
}

describe.each(["polite", "strict"] as const)("%s address pairs", (policy) => {
  it.each(families)("have one owner each whatever clients of $prefix do and bring", ({ prefix, host }) => {
    const range = rangeOf({ length: 0, ...addressOf(prefix) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const ipam = createIpam([[prefix]], policy);
        const clients = new Clients();
        for (const step of steps) {
          if (step.op === "close") ipam.close(step.client);
          if (step.op === "close") clients.forget(step.client);
          if (step.op !== "request" && step.op !== "fail") continue;
          const isAnswered = clients.request(ipam, step, host);
          expectOneOwnerEach(clients, range);
          const pair = isAnswered ? (clients.pairs.get(step.client) ?? []) : [];
          expect(pair.filter((text) => step.excluded.map(host).includes(text))).toEqual([]);
        }
        // All freed: the pool is full again.
        for (const client of clients.pairs.keys()) ipam.close(client);
        for (let i = 0; i < 4; i++) expect(connect(ipam, `new-${i}`).dstIpAddrs).toEqual([host(2 * i)]);
        expect(() => ipam.request("one-more", contextOf())).toThrowError(isExhausted);
      }),
      { numRuns: 2000 },
    );
  });

  it.each(families)("survive restarts of the endpoint of $prefix", ({ prefix, host }) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let ipam = createIpam([[prefix]], policy);
        const clients = new Clients();
        for (const step of steps) {
          if (step.op === "close") ipam.close(step.client);
          if (step.op === "close") clients.forget(step.client);
          if (step.op === "request" || step.op === "fail")
            clients.request(ipam, { ...step, brings: undefined }, host);
          if (step.op !== "restart") continue;
          ipam = createIpam([[prefix]], policy);
          const before = new Map(clients.pairs);
          // Refreshes come in any order, before new clients.
          for (const client of [...before.keys()].sort(() => step.excluded.length - 1))
            clients.request(ipam, { op: "request", client, excluded: [], brings: undefined }, host);
          expect(clients.pairs).toEqual(before);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
