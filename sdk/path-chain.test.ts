/** Walks along a path of honest and lying hops; a model that knows who made which token says what each hop must answer. */
import { create } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../api/gen/connection_pb.js";
import { makeAuthority } from "../test/support/certificates.ts";
import { systemClock } from "./clock.ts";
import { NsmError } from "./errors.ts";
import { enterHop, leaveHop } from "./path.ts";
import { authorizeServerPath } from "./policies.ts";
import type { X509Svid } from "./spiffe/source.ts";
import { createTokenMinter, placeTokens } from "./token.ts";
import type { PathToken } from "./token.ts";

const NAMES = ["nsc", "nsmgr-1", "fwd-1", "nsmgr-2", "fwd-2", "nse"];
const LIFETIME_MS = 600_000;
const now = Date.now();

/** What the model knows of a token: its makers' word, by construction and not by reading it. */
interface Fact {
  readonly by: number;
  readonly for: number;
  readonly isExpired: boolean;
}

const svids: X509Svid[] = [];
const facts = new Map<string, Fact>();
const tokens: PathToken[] = [];

/** `tokens[by][for]`, and the same again already expired. */
const tokenOf = (by: number, to: number, isExpired = false): PathToken => {
  const token = tokens[(by * NAMES.length + to) * 2 + (isExpired ? 1 : 0)];
  if (token === undefined) throw new Error("no token");
  return token;
};

beforeAll(async () => {
  const authority = await makeAuthority("example.org");
  for (const name of NAMES) svids.push((await authority.issue(`/${name}`)).svid);
  for (const [by, svid] of svids.entries()) {
    for (const [to, peer] of svids.entries()) {
      for (const isExpired of [false, true]) {
        const clock = { ...systemClock, now: () => (isExpired ? now - 2 * LIFETIME_MS : now) };
        const token = createTokenMinter({ clock, maxLifetimeMs: LIFETIME_MS }).mint(svid, peer.id);
        facts.set(token.token, { by, for: to, isExpired });
        tokens.push(token);
      }
    }
  }
});

const hopIndex = fc.integer({ min: 0, max: NAMES.length - 1 });
/** What a liar does to the message or to the metadata of its call. */
const lie = fc.oneof(
  fc.record({ kind: fc.constant("drop" as const), at: hopIndex }),
  fc.record({ kind: fc.constant("swap" as const), at: hopIndex }),
  fc.record({ kind: fc.constant("index" as const), to: fc.oneof(hopIndex, fc.constant(2 ** 32 - 1)) }),
  fc.record({ kind: fc.constant("id" as const), to: fc.constantFrom("", "id-0", "someone's") }),
  fc.record({ kind: fc.constant("name" as const), at: hopIndex, to: fc.constantFrom("", ...NAMES) }),
  fc.record({
    kind: fc.constant("write" as const),
    at: hopIndex,
    by: hopIndex,
    for: hopIndex,
    isExpired: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("blank" as const), at: hopIndex }),
  fc.record({ kind: fc.constant("call" as const), by: hopIndex, for: hopIndex, isExpired: fc.boolean() }),
  fc.record({ kind: fc.constant("mute" as const) }),
);
type Lie = typeof lie extends fc.Arbitrary<infer T> ? T : never;

/** The caller's token in the metadata, after it did what its lies say. */
function lies(connection: Connection, caller: number, told: readonly Lie[]): PathToken | undefined {
  let call: PathToken | undefined = tokenOf(caller, caller + 1);
  const { path } = connection;
  for (const l of told) {
    const segments: PathSegment[] = path?.pathSegments ?? [];
    const segment = "at" in l ? segments[l.at] : undefined;
    if (l.kind === "drop") segments.splice(l.at, 1);
    if (l.kind === "swap") segments.splice(l.at, 2, ...segments.slice(l.at, l.at + 2).reverse());
    if (l.kind === "index" && path !== undefined) path.index = l.to;
    if (l.kind === "id") connection.id = l.to;
    if (l.kind === "name" && segment !== undefined) segment.name = l.to;
    if (l.kind === "write" && segment !== undefined) segment.token = tokenOf(l.by, l.for, l.isExpired).token;
    if (l.kind === "blank" && segment !== undefined) segment.token = "";
    if (l.kind === "call") call = tokenOf(l.by, l.for, l.isExpired);
    if (l.kind === "mute") call = undefined;
  }
  return call;
}

/** What hop `self` must answer to `caller`, from who made the tokens and nothing else. */
function modelAllows(
  connection: Connection,
  self: number,
  caller: number,
  call: PathToken | undefined,
): boolean {
  const { index, pathSegments = [] } = connection.path ?? {};
  const at = index ?? 0;
  const isOwn = pathSegments[at]?.name === NAMES[self];
  if (pathSegments.length > 0 && !isOwn && pathSegments[at]?.id !== connection.id) return false;
  const own = pathSegments.length === 0 ? 0 : isOwn ? at : at + 1;
  const chain = pathSegments.slice(0, own).map((segment) => facts.get(segment.token));
  if (call !== undefined && own > 0) chain[own - 1] = facts.get(call.token);
  chain[own] = { by: self, for: caller, isExpired: false };
  const isFresh = chain.every((fact) => fact !== undefined && !fact.isExpired);
  const isChained = chain.every((fact, i) => i === 0 || chain[i - 1]?.for === fact?.by);
  return isFresh && isChained && chain[own - 1]?.by === caller;
}

/** One server: true when it goes on. */
function serves(connection: Connection, self: number, caller: number, call: PathToken | undefined): boolean {
  const name = NAMES[self] ?? "";
  try {
    enterHop(connection, name, () => `${name}-${Math.random()}`);
    const { path } = connection;
    if (path === undefined) throw new Error("entered without a path");
    placeTokens(path, call, tokenOf(self, caller));
    const sent = path.pathSegments.slice(0, path.index + 1).map((segment) => segment.token);
    authorizeServerPath(sent, path.index, svids[caller]?.chain[0], now);
    return true;
  } catch (error) {
    if (error instanceof NsmError) return false;
    throw error;
  }
}

function firstRequest(): Connection {
  const connection = create(ConnectionSchema, { id: "id-0" });
  enterHop(connection, "nsc", () => "never");
  return connection;
}

test("hops answer as the model does, whatever the hops before them tell", () => {
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(fc.array(fc.array(lie, { maxLength: 2 }), { minLength: 1, maxLength: 5 }), (toldByHop) => {
      const connection = firstRequest();
      for (const [caller, told] of toldByHop.entries()) {
        const call = lies(connection, caller, told);
        const expected = modelAllows(connection, caller + 1, caller, call);
        const answer = serves(connection, caller + 1, caller, call);
        expect(answer).toBe(expected);
        if (answer) accepted++;
        else refused++;
        if (!answer) return;
      }
    }),
    { numRuns: 50_000 },
  );
  // The walks must be of both kinds, or the agreement says little.
  expect(Math.min(accepted, refused)).toBeGreaterThan(1000);
});

test("an honest path is never refused, keeps its ids when it comes again, and returns to each caller", () => {
  for (let length = 2; length <= NAMES.length; length++) {
    const connection = firstRequest();
    const walk = () => {
      const callers = [];
      for (let self = 1; self < length; self++) {
        const before = { callerIndex: connection.path?.index ?? 0, callerId: connection.id };
        expect(serves(connection, self, self - 1, tokenOf(self - 1, self))).toBe(true);
        callers.push(before);
      }
      const ids = connection.path?.pathSegments.map((segment) => segment.id);
      for (const caller of callers.reverse()) leaveHop(connection, caller);
      expect([connection.id, connection.path?.index]).toEqual(["id-0", 0]);
      return ids;
    };
    const first = walk();
    expect(first).toHaveLength(length);
    expect(walk()).toEqual(first);
  }
});
