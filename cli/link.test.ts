import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { EndedLinkSchema, LinkStatusSchema, ListResponseSchema } from "../api/gen/link_pb.js";
import { tableOf, valueOf } from "./link.ts";

const NOW = Date.UTC(2030, 0, 1, 12);
const up = create(LinkStatusSchema, {
  domain: "west",
  trustDomain: "west.nsm",
  proxyId: "spiffe://west.nsm/proxy/west",
  state: "up",
  since: timestampFromMs(NOW - 90_000),
  way: "tunnel",
  rtt: { seconds: 0n, nanos: 12_345_000 },
  bundleHeard: timestampFromMs(NOW - 7000),
  offeredToUs: ["a", "b", "c", "d", "e"],
  offeredByUs: ["web"],
});
const down = create(LinkStatusSchema, {
  domain: "n\u001b[31morth",
  state: "down",
  since: timestampFromMs(NOW - 3 * 3_600_000),
  why: "no answer\u0007",
  dials: true,
  addresses: ["tcp://192.0.2.1:5004"],
});
const list = create(ListResponseSchema, { domain: "east", trustDomain: "east.nsm", links: [up, down] });

test("the table says how each link is, and below it why one is down", () => {
  const lines = tableOf(list, false, NOW, 120);
  expect(lines[0]).toBe("DOMAIN           STATE    RTT      BUNDLE  DIALLED BY  OFFERS US         WE OFFER");
  expect(lines[1]).toBe("west             up 90s   12.3 ms  7s old  them        a,b,c and 2 more  web");
  expect(lines[2]).toMatch(/^n\\u\{1b\}\[31morth +down 3h +- +- +us +- +-$/);
  expect(lines[3]).toBe("n\\u{1b}[31morth: no answer\\u{7}");
});

test("the wide table leaves nothing out", () => {
  const text = tableOf(list, true, NOW, Infinity).join("\n");
  expect(text).toContain("a,b,c,d,e");
  expect(text).toContain("spiffe://west.nsm/proxy/west");
  expect(text).toContain("tcp://192.0.2.1:5004");
});

test("for programs: milliseconds, times as RFC 3339, and only what is known", () => {
  expect(valueOf(up)).toMatchObject({
    state: "up",
    since: "2030-01-01T11:58:30.000Z",
    dialledBy: "them",
    rttMs: 12.345,
    bundleHeard: "2030-01-01T11:59:53.000Z",
  });
  expect(Object.keys(valueOf(down))).not.toContain("rttMs");
  expect(valueOf(down)).toMatchObject({ dialledBy: "us", why: "no answer\u0007" });
});

test("below the table stand what is to be known of a link, and links that have ended", () => {
  const since = timestampFromMs(NOW - 300_000);
  const ended = [
    { domain: "gone", byUs: false, told: true },
    { domain: "away", byUs: true, told: false },
    { domain: "over", byUs: true, told: true },
  ].map((each) => create(EndedLinkSchema, { ...each, since }));
  const noted = create(LinkStatusSchema, { ...up, note: "it hides another one" });
  expect(tableOf({ links: [noted], ended }, false, NOW, 120).slice(2)).toEqual([
    "west: it hides another one",
    "gone: removed by gone 5m ago",
    "away: removed here 5m ago; away does not know yet",
  ]);
  expect(tableOf({ links: [], ended: ended.slice(0, 1) }, false, NOW, 120)).toEqual([
    "gone: removed by gone 5m ago",
  ]);
  expect(valueOf(noted)).toMatchObject({ note: "it hides another one" });
});
