/** Two domains that are linked by a token, over real TLS: verified both ways, or nothing is left of it. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test, vi } from "vitest";
import { CreateTokenRequestSchema } from "../../api/gen/link_pb.js";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Caller } from "../../sdk/grpc/caller.ts";
import {
  caExtensions,
  makeAuthority,
  makeCertificate,
  svidExtensions,
  svidOf,
} from "../../test/support/certificates.ts";
import type { TestAuthority } from "../../test/support/certificates.ts";
import { failureOf, until } from "../../test/support/grpc.ts";
import { joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";
import type { Side, SideOptions } from "../../test/support/link-sides.ts";
import { makePeer } from "../../test/support/peer.ts";
import { linkAdmin } from "./admin.ts";
import { doorPath } from "./tunnels.ts";

async function sides(east: SideOptions = {}, west: SideOptions = {}): Promise<readonly [Side, Side]> {
  const both = [await openSide("east", east), await openSide("west", west)] as const;
  onTestFinished(async () => {
    for (const side of both) await side[Symbol.asyncDispose]();
  });
  return both;
}

const stateOf = ({ store }: Side) => store.current().links.map(({ domain, state }) => `${domain} ${state}`);
const wayOf = ({ links }: Side) => links.hub.links().map(({ id }) => links.hub.live(id).way?.kind);
const nothingLeft = (side: Side) =>
  until("nothing is left", () => stateOf(side).length === 0 && side.trust.given.size === 0);

test("a token links two domains: both trust each other, and each has called the other", async () => {
  const [east, west] = await sides();
  const said = await joinWith(west, await tokenOf(east));
  expect(said.at(-1)).toBe("both directions are verified: west and east are linked");
  expect(stateOf(west)).toEqual(["east linked"]);
  await until("east has heard of it", () => stateOf(east)[0] === "west linked");
  await until("both ways are open", () => [east, west].every((side) => wayOf(side)[0] === "direct"));
  expect([...east.trust.given.keys()]).toEqual(["west.nsm"]);
  expect([...west.trust.given.keys()]).toEqual(["east.nsm"]);
  expect(east.links.hub.peers.domainOf("spiffe://west.nsm/proxy")).toBe("west");
  expect(east.links.hub.peers.domainOf("spiffe://west.nsm/other")).toBeUndefined();
  const { mode } = await stat(join(east.directory, "links.json"));
  expect(mode & 0o777).toBe(0o600);
  await until("a round trip is measured", () =>
    [east, west].every(({ links }) =>
      links.hub.links().every(({ id }) => links.hub.live(id).rttMs !== undefined),
    ),
  );
});

test("who dials hears from which address the other side sees it come, and nobody hears it of whom it dialled", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("west has heard it", () => west.links.hub.observedAddress("east") === "127.0.0.1");
  expect(east.links.hub.observedAddress("west")).toBeUndefined();
  expect(west.links.hub.observedAddress("north")).toBeUndefined();
});

test("a token whose life nobody says is good for a quarter of an hour, and none for more than a day", async () => {
  const nowMs = Date.now();
  const [east] = await sides({ clock: { ...systemClock, now: () => nowMs } });
  const admin = linkAdmin(east.links, { to: () => [], onChange: () => new DisposableStack() });
  const caller: Caller = {
    peer: await makePeer("/operator"),
    metadata: { get: () => [] },
    signal: new AbortController().signal,
    deadlineMs: undefined,
    sendHeader: () => undefined,
  };
  const lifeOf = async (request: MessageInitShape<typeof CreateTokenRequestSchema>) => {
    const { expires } = await admin.createToken(create(CreateTokenRequestSchema, request), caller);
    return expires && timestampMs(expires) - nowMs;
  };
  expect(await lifeOf({})).toBe(15 * 60_000);
  expect(await lifeOf({ life: { seconds: 86_400n } })).toBe(86_400_000);
  for (const seconds of [0n, 86_401n])
    await expect(lifeOf({ life: { seconds } })).rejects.toMatchObject({ reason: "bad-life" });
});

test("both say at once what the other may use, and again when that changes", async () => {
  const told = new Set<() => void>();
  const services: Record<string, string[]> = { east: ["a"], west: ["b"] };
  const offers = {
    to: (domain: string) => services[domain] ?? [],
    onChange(listener: () => void) {
      told.add(listener);
      return { [Symbol.dispose]: () => void told.delete(listener) };
    },
  };
  const [east, west] = await sides({ offers }, { offers });
  const heard = () =>
    [east, west].map(({ links }) =>
      links.hub
        .links()
        .map(({ id }) => links.hub.live(id).offeredToUs)
        .flat(),
    );
  await joinWith(west, await tokenOf(east));
  await vi.waitFor(() => expect(heard()).toEqual([["a"], ["b"]]));
  services["east"] = ["a", "c"];
  for (const tell of told) tell();
  await vi.waitFor(() => expect(heard()).toEqual([["a", "c"], ["b"]]));
});

test("a side that cannot be dialled is reached through a tunnel", async () => {
  const [east, west] = await sides({}, { addresses: () => [] });
  await joinWith(west, await tokenOf(east));
  await until("east has its way", () => wayOf(east)[0] === "tunnel");
  expect(wayOf(west)).toEqual(["direct"]);
  const target = { url: "link://west", expect: () => false }; // the link knows who is there
  expect((await east.links.pool.connect(target)).peerId).toBe("spiffe://west.nsm/proxy");
  const [link] = east.store.current().links;
  expect((await stat(doorPath(east.directory, "west"))).mode & 0o777).toBe(0o600);
  expect(link?.addresses).toEqual([]);
});

test("a token is good once, and exactly one of many who use it at the same time is linked, who cannot use it again either", async () => {
  const [east, west] = await sides();
  const token = await tokenOf(east);
  const others = await Promise.all(["north", "south", "up"].map((name) => openSide(name)));
  onTestFinished(async () => {
    for (const side of others) await side[Symbol.asyncDispose]();
  });
  const results = await Promise.allSettled([west, ...others].map((side) => joinWith(side, token)));
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  expect(east.store.current().links).toHaveLength(1);
  const reasons = results.flatMap((result) =>
    result.status === "rejected" ? [result.reason as unknown] : [],
  );
  expect(reasons).toEqual(reasons.map(() => expect.objectContaining({ reason: "token-used" })));
  const winner = [west, ...others].find((side) => stateOf(side)[0] === "east linked");
  for (const side of [west, ...others]) if (side !== winner) await nothingLeft(side);

  if (winner === undefined) throw new Error("nobody is linked");
  await until("east is linked", () => stateOf(east)[0]?.endsWith(" linked") === true);
  await winner.links.remove("east");
  for (const side of [east, winner]) await nothingLeft(side);
  expect(await failureOf(joinWith(winner, token))).toMatchObject({ reason: "token-used" });
  for (const side of [east, winner]) await nothingLeft(side);
});

test("removed on one side, it is removed on both, and the trust with it", async () => {
  for (const remover of [0, 1] as const) {
    const both = await sides();
    await joinWith(both[1], await tokenOf(both[0]));
    await until("east is linked", () => stateOf(both[0])[0] === "west linked");
    const told = await both[remover].links.remove(remover === 0 ? "west" : "east");
    expect(told).toBe(true);
    for (const side of both) await nothingLeft(side);
    expect(await failureOf(both[remover].links.remove("west"))).toMatchObject({ reason: "not-linked" });
  }
});

test("a side that was away while the link was removed hears of it when it comes back", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => stateOf(east)[0] === "west linked");
  await west.stop();
  expect(await east.links.remove("west")).toBe(false);
  const back = await west.restart();
  onTestFinished(() => back[Symbol.asyncDispose]());
  await nothingLeft(back);
});

test("the side that was joined hears of it, too, if it can ask", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => stateOf(east)[0] === "west linked");
  // West is there, and east cannot be told: its server has gone and comes back elsewhere.
  const [link] = east.store.current().links;
  await east.stop();
  expect(await west.links.remove("east")).toBe(false);
  const back = await east.restart();
  onTestFinished(() => back[Symbol.asyncDispose]());
  expect(back.store.current().links[0]?.addresses).toEqual(link?.addresses);
  await nothingLeft(back);
});

test("in one trust domain two domains are linked without any bundle, and trust what they trusted afterwards", async () => {
  const authority = await makeAuthority("both.nsm");
  const [east, west] = await sides({ authority, path: "/proxy/east" }, { authority, path: "/proxy/west" });
  await joinWith(west, await tokenOf(east));
  await until("both are up", () => [east, west].every((side) => wayOf(side)[0] !== undefined));
  expect([east, west].map(({ trust }) => trust.given.size)).toEqual([0, 0]);
  expect(east.links.hub.peers.domainOf("spiffe://both.nsm/proxy/west")).toBe("west");
  expect(await west.links.remove("east")).toBe(true);
  for (const side of [east, west]) await nothingLeft(side);
  expect(east.trust.has("both.nsm")).toBe(true);
});

test("so are two whose authorities are below one root", async () => {
  const root = await makeAuthority("both.nsm");
  const [east, west] = await sides(
    { authority: await below(root, "east"), path: "/proxy/east" },
    { authority: await below(root, "west"), path: "/proxy/west" },
  );
  expect(east.source.current().svid.chain.map(({ issuer }) => issuer)).toEqual(["CN=east", "CN=both.nsm"]);
  await joinWith(west, await tokenOf(east));
  await until("both are up", () => [east, west].every((side) => wayOf(side)[0] === "direct"));
  expect([east, west].map(({ trust }) => trust.given.size)).toEqual([0, 0]);
  expect(await east.links.remove("west")).toBe(true);
  for (const side of [east, west]) await nothingLeft(side);
});

/** An authority with a CA of its own, which the root has signed; who trusts the root trusts it. */
async function below(root: TestAuthority, name: string): Promise<TestAuthority> {
  const ca = await makeCertificate({ subject: `CN=${name}`, issuer: root.ca, extensions: caExtensions(0) });
  return {
    ...root,
    async issue(path, { generation = 1 } = {}) {
      const id = `spiffe://${root.trustDomain}${path}`;
      const leaf = await makeCertificate({ issuer: ca, extensions: svidExtensions(id) });
      return { generation, svid: svidOf(id, leaf, [ca]), bundles: root.bundles };
    },
  };
}

test("after a restart of either side the link is up again by itself", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => stateOf(east)[0] === "west linked");
  const again = await west.restart();
  onTestFinished(() => again[Symbol.asyncDispose]());
  await until("both are up", () => wayOf(again)[0] === "direct" && wayOf(east)[0] !== undefined);
  expect(stateOf(again)).toEqual(["east linked"]);
});

test("while a link is down, calls over it fail at once", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await west.stop();
  await until("east sees it", () => wayOf(east)[0] === undefined);
  expect(await failureOf(east.links.pool.connect({ url: "link://west" }))).toMatchObject({
    code: "UNAVAILABLE",
    reason: "domain-silent",
  });
  expect(await failureOf(east.links.pool.connect({ url: "link://nobody" }))).toMatchObject({
    reason: "domain-silent",
  });
});

test("what one side publishes anew reaches the other by itself, and what its authority refuses changes nothing", async () => {
  const [east, west] = await sides();
  await joinWith(west, await tokenOf(east));
  await until("east is linked", () => stateOf(east)[0] === "west linked");
  for (const [from, to] of [
    [east, west],
    [west, east],
  ] as const) {
    const next = from.trust.own().replace('"spiffe_sequence":1', '"spiffe_sequence":2');
    from.trust.publish(next);
    await until("it has arrived", () => [...to.trust.given.values()][0] === next);
    expect(to.store.current().links[0]?.bundle).toBe(next);

    to.trust.refusal = new NsmError("FAILED_PRECONDITION", "sequence-backwards", "it had a higher one");
    using set = vi.spyOn(to.trust, "set");
    from.trust.publish(next.replace('"spiffe_sequence":2', '"spiffe_sequence":1'));
    await until("it is refused", () => set.mock.calls.length > 0);
    to.trust.refusal = undefined;
    const last = next.replace('"spiffe_sequence":2', '"spiffe_sequence":3');
    expect([...to.trust.given.values()]).toEqual([next]);
    expect(to.store.current().links[0]?.bundle).toBe(next);
    from.trust.publish(last);
    await until("the one after it has arrived", () => [...to.trust.given.values()][0] === last);
  }
});
