/** Joins that go wrong, by accident or on purpose: what is said, and that nothing is left of them on either side. */
import { connect as connectTls, createServer } from "node:tls";
import type { TLSSocket } from "node:tls";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { KeepRequestSchema, Link, TellRequestSchema } from "../../api/gen/link_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import { failureOf, until } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { bundleOf, joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";
import type { Side, SideOptions } from "../../test/support/link-sides.ts";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { createSessionPool } from "../../sdk/grpc/sessions.ts";
import { silentLogger } from "../../sdk/log.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { ask, fetchPinnedBundle } from "./ask.ts";
import type { JoinBody } from "./redeem.ts";
import { parseToken } from "./token.ts";

async function sides(east: SideOptions = {}, west: SideOptions = {}): Promise<readonly [Side, Side]> {
  const both = [await openSide("east", east), await openSide("west", west)] as const;
  onTestFinished(async () => {
    for (const side of both) await side[Symbol.asyncDispose]();
  });
  return both;
}

const nothingLeft = (side: Side) =>
  until("nothing is left", () => side.store.current().links.length === 0 && side.trust.given.size === 0);
const linksOf = ({ store }: Side) => store.current().links.map(({ domain, state }) => `${domain} ${state}`);

/** Whoever is in the middle, with a certificate of its own, and everything that it could read. */
async function relayTo(
  target: string,
  authority = "evil.test",
): Promise<{ url: string; heard: () => string }> {
  const { svid } = await (await makeAuthority(authority)).issue("/proxy");
  let heard = "";
  const open = new Set<TLSSocket>();
  const server = createServer(
    { key: svid.privateKeyPem, cert: svid.chainPem, ALPNProtocols: ["http/1.1", "h2"] },
    (socket) => {
      const port = Number(target.split(":").at(-1));
      const onward = connectTls({
        port,
        host: "127.0.0.1",
        rejectUnauthorized: false,
        ALPNProtocols: ["http/1.1"],
      });
      for (const each of [socket, onward]) {
        open.add(each);
        each.on("error", () => each.destroy());
      }
      socket.on("data", (data: Buffer) => (heard += data.toString()));
      socket.pipe(onward).pipe(socket);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  return { url: `tcp://127.0.0.1:${address.port}`, heard: () => heard };
}

test.for(["evil.test", "east.nsm"])(
  "somebody in the middle (%s) who passes everything on hears no secret and gets nothing",
  async (trustDomain) => {
    let url = "";
    const [east, west] = await sides({ addresses: () => [url] });
    const relay = await relayTo(east.url, trustDomain);
    ({ url } = relay);
    const token = await tokenOf(east);
    expect(await failureOf(joinWith(west, token))).toMatchObject({
      code: "UNAUTHENTICATED",
      reason: "not-the-issuer",
      message: expect.stringContaining("Nothing was told to it"),
    });
    expect(relay.heard()).toContain("GET /bundle");
    expect(relay.heard()).not.toContain(parseToken(token).secret);
    expect(relay.heard()).not.toContain("POST");
    for (const side of [east, west]) await nothingLeft(side);
    ({ url } = east);
    await joinWith(west, await tokenOf(east));
    expect(linksOf(west)).toEqual(["east linked"]);
  },
);

/** A join by hand: what `change` says otherwise. */
async function joinByHand(east: Side, west: Side, change: Partial<JoinBody>): Promise<string> {
  const token = parseToken(await tokenOf(east));
  const asking = { url: east.url, nowMs: Date.now(), signal: AbortSignal.timeout(10_000) };
  const { expected } = await fetchPinnedBundle(token, asking);
  const body: JoinBody = {
    version: 1,
    token: { id: token.id, secret: token.secret },
    linkId: "made-up-link-id-0123456789",
    timeMs: Date.now(),
    domain: "west",
    trustDomain: "west.nsm",
    proxyId: "spiffe://west.nsm/proxy",
    bundle: bundleOf(west.authority),
    addresses: [],
    ...change,
  };
  return await ask({ ...asking, path: "/join", body }, expected);
}

const wrong: readonly (readonly [string, string, Partial<JoinBody>])[] = [
  ["a clock an hour ahead", "clocks-apart", { timeMs: Date.now() + 3_600_000 }],
  ["a clock an hour behind", "clocks-apart", { timeMs: Date.now() - 3_600_000 }],
  ["a proxy of another trust domain", "foreign-id", { trustDomain: "north.nsm" }],
  ["the name of the other side", "own-domain", { domain: "east" }],
  ["the other side's own id", "own-proxy", { proxyId: "spiffe://east.nsm/proxy", trustDomain: "east.nsm" }],
  ["no bundle", "bad-bundle", { bundle: '{"keys":[]}' }],
  ["garbage for a bundle", "bad-bundle", { bundle: "garbage" }],
  ["a domain that is a path", "bad-request", { domain: "../west" }],
];
test.for(wrong)("a join with %s is refused (%s), and makes nothing", async ([, reason, change]) => {
  const [east, west] = await sides();
  expect(await failureOf(joinByHand(east, west, change))).toMatchObject({ reason });
  await nothingLeft(east);
});

test("a second domain of a name that is linked is refused, and the first one stays", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => linksOf(east)[0] === "west linked");
  const twin = await openSide("west", { authority: await makeAuthority("twin.nsm") });
  onTestFinished(() => twin[Symbol.asyncDispose]());
  expect(await failureOf(joinWith(twin, await tokenOf(east)))).toMatchObject({
    reason: "domain-taken",
    message: expect.stringMatching(/west.*west\.nsm/),
  });
  await nothingLeft(twin);
  expect(linksOf(east)).toEqual(["west linked"]);
  expect([...east.trust.given.keys()]).toEqual(["west.nsm"]);
  expect(east.links.hub.peers.domainOf("spiffe://twin.nsm/proxy")).toBeUndefined();
});

test("clocks that make certificates worthless are said to be the reason", async () => {
  const clock = { ...systemClock, now: () => Date.now() + 2 * 3_600_000 };
  const [east, west] = await sides({}, { clock });
  expect(await failureOf(joinWith(west, await tokenOf(east)))).toMatchObject({
    reason: "clocks-apart",
    message: expect.stringMatching(/expired at .* and it is .* here.*Set the clocks/),
  });
  for (const side of [east, west]) await nothingLeft(side);
});

test("who took a token and never came is forgotten", async () => {
  const [east, west] = await sides({ pendingMs: 300 });
  await joinByHand(east, west, {});
  expect(linksOf(east)).toEqual(["west pending"]);
  expect([...east.trust.given.keys()]).toEqual(["west.nsm"]);
  await nothingLeft(east);
});

test.for([0, 1] as const)(
  "an authority that refuses (side %d) ends the join on both sides",
  async (refusing) => {
    const both = await sides();
    both[refusing].trust.refusal = new NsmError("PERMISSION_DENIED", "not-federation", "you may not");
    expect(await failureOf(joinWith(both[1], await tokenOf(both[0])))).toMatchObject({
      message: "you may not",
    });
    for (const side of both) await nothingLeft(side);
  },
);

test("a join that is given up is taken back on both sides, and can be tried again at once", async () => {
  const [east, west] = await sides({}, { addresses: () => [] });
  const set = west.trust.set.bind(west.trust);
  const given = new AbortController();
  west.trust.set = (_name, _document, signal) =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new Error("aborted")));
      setImmediate(() => given.abort());
    });
  expect(await failureOf(joinWith(west, await tokenOf(east), given.signal))).toMatchObject({
    reason: "given-up",
  });
  for (const side of [east, west]) await nothingLeft(side);
  west.trust.set = set;
  await joinWith(west, await tokenOf(east));
});

test("a join of which the other side never hears is over when its time is", async () => {
  const [east, west] = await sides({ pendingMs: 1000 }, { pendingMs: 1000 });
  // East trusts, and west does not: no session comes about.
  west.trust.set = () => Promise.resolve();
  expect(await failureOf(joinWith(west, await tokenOf(east)))).toMatchObject({
    code: "DEADLINE_EXCEEDED",
    reason: "not-verified",
    message: expect.stringContaining("the last that was heard: cannot reach"),
  });
  for (const side of [east, west]) await nothingLeft(side);
});

test("only the linked proxy itself speaks for a linked domain", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  const [link] = west.store.current().links;
  if (link === undefined) throw new Error("not linked");
  const bundles = new Map([...east.authority.bundles, ...west.authority.bundles]);
  const as = async (path: string) => {
    const source = await makeSource(west.authority, path, { bundles });
    const pool = createSessionPool({ source, verify: verifySvid, clock: systemClock, log: silentLogger });
    onTestFinished(() => pool[Symbol.asyncDispose]());
    return pool;
  };
  const target = { url: east.url };
  const stranger = await as("/workload");
  const tell = create(TellRequestSchema, { linkId: link.id, unlinked: true });
  expect(await failureOf(stranger.unary(target, Link.method.tell, tell))).toMatchObject({
    code: "UNAVAILABLE",
  });

  const proxy = await as("/proxy");
  const otherLink = create(TellRequestSchema, { linkId: "another-link-0123456789", unlinked: true });
  expect(await failureOf(proxy.unary(target, Link.method.tell, otherLink))).toMatchObject({
    reason: "not-linked",
  });
  const keep = proxy.stream(target, Link.method.keep, create(KeepRequestSchema, { linkId: "x" }));
  expect(await failureOf(keep.next())).toMatchObject({ reason: "not-linked" });
  expect(linksOf(east)).toHaveLength(1);
});

test("a bundle that is none is refused, and the last one stays", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => linksOf(east)[0] === "west linked");
  const before = [...east.trust.given.values()];
  for (const document of ["garbage", '{"keys":[]}', `{"keys":[],"x":"${"y".repeat(300 * 1024)}"}`])
    west.trust.publish(document);
  west.trust.publish(bundleOf(west.authority, 2n));
  await until("the good one has come", () => [...east.trust.given.values()][0] !== before[0]);
  expect([...east.trust.given.values()]).toEqual([bundleOf(west.authority, 2n)]);
});
