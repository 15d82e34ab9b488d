/** Links whose sides move, or are away when the link ends: what the other side learns, and from whom alone. */
import { expect, onTestFinished, test } from "vitest";
import { failureOf, until } from "../../test/support/grpc.ts";
import { makeAuthority } from "../../test/support/certificates.ts";
import { makeSource } from "../../test/support/identity.ts";
import { joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";
import type { Side, SideOptions } from "../../test/support/link-sides.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import { ask } from "./ask.ts";

/** East made the token, west dials. */
async function linked(west: SideOptions = {}): Promise<{ east: Side; west: Side }> {
  const sides = { east: await openSide("east"), west: await openSide("west", west) };
  onTestFinished(async () => {
    await sides.west[Symbol.asyncDispose]();
    await sides.east[Symbol.asyncDispose]();
  });
  await joinWith(sides.west, await tokenOf(sides.east));
  await until("both are up", () => isUp(sides.east) && isUp(sides.west));
  return sides;
}

const isUp = ({ links }: Side) =>
  links.hub.links().some(({ id, state }) => state === "linked" && links.hub.live(id).way !== undefined);
const addressesOf = ({ store }: Side) => store.current().links[0]?.addresses ?? [];
const endedOf = ({ store }: Side) =>
  store.current().ended.map(({ domain, by, isTold }) => `${domain} by ${by}${isTold ? "" : ", not told"}`);
const nobody = new AbortController().signal;

test("a side that comes back with another address tells it to the one that dials, if that can be dialled", async () => {
  const sides = await linked();
  const before = sides.east.url;
  sides.east = await sides.east.restart();
  expect(sides.east.url).not.toBe(before);
  await until("west dials the new address", () => isUp(sides.west), 30_000);
  await until("west knows it", () => addressesOf(sides.west).includes(sides.east.url));
});

test("a side that only dials is told the other's new address by its operator, and asks there who it is first", async () => {
  const sides = await linked({ addresses: () => [] });
  const { links, store } = sides.west;
  const [before] = addressesOf(sides.west);
  sides.east = await sides.east.restart();
  const stranger = await openSide("north");
  onTestFinished(() => stranger[Symbol.asyncDispose]());
  expect(await failureOf(links.setAddresses("east", [stranger.url], nobody))).toMatchObject({
    code: "UNAUTHENTICATED",
    reason: "not-there",
    message: expect.stringMatching(/^spiffe:\/\/east\.nsm\/proxy does not answer at .* nothing is changed/),
  });
  expect(await failureOf(links.setAddresses("east", ["tcp://127.0.0.1:1"], nobody))).toMatchObject({
    code: "UNAVAILABLE",
  });
  for (const wrong of [[], ["unix:///x"], ["127.0.0.1:5"], Array.from({ length: 9 }, () => sides.east.url)])
    expect(await failureOf(links.setAddresses("east", wrong, nobody))).toMatchObject({
      reason: "bad-address",
    });
  expect(await failureOf(links.setAddresses("south", [sides.east.url], nobody))).toMatchObject({
    reason: "not-linked",
  });
  expect(addressesOf(sides.west)).toEqual([before]);

  await links.setAddresses("east", [sides.east.url], nobody);
  await until("the link is up again", () => isUp(sides.west) && isUp(sides.east));
  expect(store.current().links[0]?.addresses).toEqual([sides.east.url]);
});

test("an address that works stays beside those that the other side says, and what may not be dialled is not kept", async () => {
  const said = ["tcp://192.0.2.7:5", "nonsense", "unix:///x"];
  let addresses: readonly string[] | undefined;
  const east: Side = await openSide("east", { addresses: () => addresses ?? [east.url] });
  const west = await openSide("west");
  onTestFinished(async () => {
    for (const side of [west, east]) await side[Symbol.asyncDispose]();
  });
  await joinWith(west, await tokenOf(east));
  await until("both are up", () => isUp(east) && isUp(west));
  addresses = said;
  east.trust.publish(east.trust.own()); // news
  await until("west has heard", () => addressesOf(west).length === 2);
  expect(addressesOf(west)).toEqual(["tcp://192.0.2.7:5", east.url]);
  addresses = [];
  east.trust.publish(east.trust.own());
  addresses = ["tcp://192.0.2.8:5"];
  east.trust.publish(east.trust.own());
  await until("west has heard", () => addressesOf(west)[0] === "tcp://192.0.2.8:5");
  expect(addressesOf(west)).toEqual(["tcp://192.0.2.8:5", east.url]);
});

test.for(["west", "east"] as const)(
  "a link that %s removes while the other is away is removed there, too, when both can speak again",
  async (remover) => {
    // Nobody can dial west: east cannot ask whether west still knows the link.
    const sides = await linked({ addresses: () => [] });
    const other = remover === "west" ? "east" : "west";
    const address = sides.east.url;
    await sides[other].stop();
    await until("it is seen", () => !isUp(sides[remover]));
    expect(await sides[remover].links.remove(other)).toBe(false);
    expect(sides[remover].trust.given.size).toBe(0);
    expect(endedOf(sides[remover])).toEqual([`${other} by us, not told`]);
    sides[remover] = await sides[remover].restart({ port: portOf(sides[remover]) });

    const port = other === "east" ? Number(address.split(":").at(-1)) : 0;
    sides[other] = await sides[other].restart({ port });
    await until("it is gone", () => sides[other].store.current().links.length === 0, 30_000);
    await until("nothing of it is trusted", () => sides[other].trust.given.size === 0);
    expect(endedOf(sides[other])).toEqual([`${remover} by them`]);
    await until("that is known, too", () => endedOf(sides[remover])[0] === `${other} by us`);
    // What was is forgotten with a new link.
    await joinWith(sides.west, await tokenOf(sides.east));
    for (const side of [sides.east, sides.west]) expect(endedOf(side)).toEqual([]);
  },
);

const portOf = ({ url }: Side) => Number(url.split(":").at(-1));

test("a link that stands is ended by nobody but the linked proxy, whatever else is known of it", async () => {
  const { east, west } = await linked();
  const [link] = east.store.current().links;
  if (link === undefined) throw new Error("not linked");
  const leave = (as?: X509Snapshot) =>
    ask(
      {
        url: east.url,
        path: "/leave",
        body: { linkId: link.id },
        ...(as !== undefined && { own: { key: as.svid.privateKeyPem, cert: as.svid.chainPem } }),
        nowMs: Date.now(),
        signal: AbortSignal.timeout(10_000),
      },
      {
        proxyId: "spiffe://east.nsm/proxy",
        certificates: [...(east.authority.bundles.get("east.nsm") ?? [])],
      },
    );
  const forged = await makeSource(await makeAuthority("west.nsm"), "/proxy");
  const workload = await makeSource(west.authority, "/workload");
  const own = await makeSource(east.authority, "/proxy");
  for (const each of [undefined, forged.current(), workload.current(), own.current()])
    await failureOf(leave(each));
  expect(await failureOf(leave(workload.current()))).toMatchObject({ reason: "peer-refused" });
  expect(isUp(east)).toBe(true);
  await leave(west.source.current());
  await until("it is ended", () => east.store.current().links.length === 0);
  expect(endedOf(east)).toEqual(["west by them"]);
});
