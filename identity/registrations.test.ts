import { describe, expect, test } from "vitest";
import { messageOf } from "../sdk/errors.ts";
import { areExclusive, isWithin, parseRegistrations } from "./registrations.ts";
import type { Match } from "./registrations.ts";

const DOMAIN = "a.test";
const id = (name: string) => `spiffe://${DOMAIN}/${name}`;
const file = (...registrations: readonly object[]) => JSON.stringify({ registrations });

test("a file with every selector is read", () => {
  const text = `
registrations:
  - id: spiffe://a.test/nsmgr
    match: { uid: 0, gid: 1001, netns: /run/netns/../netns/pod-a, cgroup: /system.slice/x.service/, executable: /usr/bin/x }
  - id: spiffe://a.test/nsc
    match:
      uid: 0
      gid: 1002
      netns: 4026531840
`;
  expect(parseRegistrations(text, DOMAIN)).toEqual([
    {
      id: id("nsmgr"),
      match: {
        uid: 0,
        gid: 1001,
        netns: "/run/netns/pod-a",
        cgroup: "system.slice/x.service",
        executable: "/usr/bin/x",
      },
    },
    { id: id("nsc"), match: { uid: 0, gid: 1002, netns: 4026531840 } },
  ]);
});

test.each<[name: string, text: string, fault: RegExp]>([
  ["nothing", "", /file/],
  ["no list", "registrations: 1", /registrations/],
  ["an empty list", "registrations: []", /is empty/],
  ["a YAML error", "registrations: [", /flow/i],
  ["a repeated key", "registrations: []\nregistrations: []", /unique/i],
  ["an unknown tag", "registrations: !!js/function x", /tag/i],
  [
    "an alias bomb",
    `a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\nregistrations: [*d,*d,*d,*d]`,
    /alias/i,
  ],
  ["a huge file", `#${"x".repeat(1024 * 1024)}`, /larger/],
  [
    "an empty match",
    file({ id: id("a"), match: {} }),
    /line 1, column \d+: registrations\[0\]\.match is empty/,
  ],
  ["no match", file({ id: id("a") }), /match/],
  ["an unknown selector", file({ id: id("a"), match: { uid: 0, argv: "x" } }), /argv/],
  ["an unknown member", file({ id: id("a"), match: { uid: 0 }, ttl: 5 }), /ttl/],
  [
    "a uid as text",
    file({ id: id("a"), match: { uid: "0" } }),
    /line 1, column \d+: registrations\[0\]\.match\.uid/,
  ],
  ["a negative uid", file({ id: id("a"), match: { uid: -1 } }), /match\.uid/],
  ["a relative path", file({ id: id("a"), match: { executable: "x" } }), /absolute/],
  ["the root cgroup", file({ id: id("a"), match: { cgroup: "/" } }), /root/],
  [
    "another trust domain",
    file({ id: "spiffe://b.test/a", match: { uid: 0 } }),
    /spiffe:\/\/b\.test\/a is not in trust domain a\.test/,
  ],
  ["an id without path", file({ id: "spiffe://a.test", match: { uid: 0 } }), /has a path/],
  ["a malformed id", file({ id: "spiffe://a.test/../x", match: { uid: 0 } }), /path segment/],
])("%s is refused", (_, text, fault) => {
  expect(() => parseRegistrations(text, DOMAIN)).toThrow(
    expect.objectContaining({ reason: "bad-registrations", message: expect.stringMatching(fault) }),
  );
});

test("all faults are listed at once", () => {
  const text = file(
    { id: "spiffe://b.test/a", match: { uid: 0 } },
    { id: id("b"), match: { gid: 1 } },
    { id: id("c"), match: { gid: 2 } },
  );
  expect(() => parseRegistrations(text, DOMAIN)).toThrow(
    /trust domain[^]*b\.test\/a \(uid 0\) and[^]*\(gid 1\)[^]*\(gid 2\)/,
  );
});

describe("two registrations exclude each other only when a selector that both have differs", () => {
  test.each<[a: Match, b: Match, isExclusive: boolean]>([
    [{ uid: 0 }, { uid: 0 }, false],
    [{ uid: 0 }, { uid: 1 }, true],
    [{ uid: 0 }, { gid: 1 }, false],
    [{ uid: 0, gid: 1 }, { uid: 0, gid: 2 }, true],
    [{ uid: 0, gid: 1 }, { uid: 0 }, false],
    [{ uid: 0, netns: 1 }, { uid: 0, netns: 2 }, true],
    [{ netns: 1 }, { netns: 1 }, false],
    [{ netns: "/run/netns/a" }, { netns: "/run/netns/b" }, true],
    [{ netns: "/run/netns/a" }, { netns: 1 }, false],
    [{ cgroup: "system.slice/a.service" }, { cgroup: "system.slice/b.service" }, true],
    [{ cgroup: "system.slice" }, { cgroup: "system.slice/b.service" }, false],
    [{ cgroup: "system.slice/b.service" }, { cgroup: "system.slice/b.service2" }, true],
    [{ executable: "/bin/a" }, { executable: "/bin/b" }, true],
    [{ executable: "/bin/a", uid: 0 }, { executable: "/bin/a", gid: 0 }, false],
    [{ executable: "/bin/a", uid: 0 }, { cgroup: "x", gid: 0 }, false],
  ])("%j, %j: %s", (a, b, isExclusive) => {
    expect(areExclusive(a, b)).toBe(isExclusive);
    expect(areExclusive(b, a)).toBe(isExclusive);
    const text = file({ id: id("a"), match: a }, { id: id("b"), match: b });
    expect(outcome(() => parseRegistrations(text, DOMAIN))).toMatch(
      isExclusive ? /^ok$/ : /could fit one process/,
    );
  });
});

function outcome(run: () => unknown): string {
  try {
    run();
    return "ok";
  } catch (error) {
    return messageOf(error);
  }
}

test("a cgroup contains those below it, by whole names", () => {
  expect(isWithin("a/b", "a")).toBe(true);
  expect(isWithin("a", "a")).toBe(true);
  expect(isWithin("ab", "a")).toBe(false);
  expect(isWithin("a", "a/b")).toBe(false);
});
