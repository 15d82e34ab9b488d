/** Two clusters with trust domains of their own, linked by one command each: verified both ways, kept, and ended without a trace. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join as pathOf } from "node:path";
import { expect, test, vi } from "vitest";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import { LINKING, linksOf, runNsmIn, tokenOf } from "../support/link-commands.ts";
import { fresh } from "../support/mesh.ts";
import { useMesh } from "../support/use-mesh.ts";

const mesh = useMesh({ ...LINKING, nodes: 1 });

const PATIENCE = { timeout: 60_000, interval: 200 };
const listed = async () => [await linksOf(mesh, "east"), await linksOf(mesh, "west")];
const up = { state: "up", rttMs: expect.any(Number), bundleHeard: expect.any(String) };
const expectLinked = () =>
  vi.waitFor(
    async () =>
      expect(await listed()).toMatchObject([[{ domain: "west", ...up }], [{ domain: "east", ...up }]]),
    PATIENCE,
  );
const expectUnlinked = () => vi.waitFor(async () => expect(await listed()).toEqual([[], []]), PATIENCE);
const join = (token: string) => runNsmIn(mesh, "west", "link", "join", token);
const expectJoined = async () => {
  const { code, stdout, stderr } = await join(await tokenOf(mesh, "east"));
  expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: "east\n" });
};

test("a token from one cluster, used in the other, links both", async () => {
  const token = await tokenOf(mesh, "east");
  const joined = await join(token);
  expect(joined).toMatchObject({ code: 0, stdout: "east\n" });
  expect(joined.stderr).toContain("both directions are verified: west and east are linked");
  await expectLinked();
  expect(await linksOf(mesh, "east")).toMatchObject([{ way: "direct", dialledBy: "them" }]);
  expect(await linksOf(mesh, "west")).toMatchObject([{ way: "direct", dialledBy: "us" }]);

  const again = await join(token);
  expect(again).toMatchObject({ code: 1, stdout: "" });
  expect(again.stderr).toContain("the domain east is linked already: nsm link remove east first");
  const table = await runNsmIn(mesh, "east", "link", "list");
  expect(table.stdout).toMatch(
    /^DOMAIN +STATE +RTT +BUNDLE +DIALLED BY +OFFERS US +WE OFFER\nwest +up \d+s +[\d.]+ ms/,
  );
});

test.for([["proxy-east"], ["proxy-west"], ["proxy-east", "proxy-west"], ["identity-east"]])(
  "%s killed and started again: the link is up again by itself",
  async (names) => {
    await mesh.restart(...names);
    for (const name of names) await mesh.daemon(name).waitFor(" serves", 60_000);
    await expectLinked();
    expect(await linksOf(mesh, "west")).toMatchObject([{ way: "direct" }]);
  },
);

test("new keys of one cluster's authority reach the other by themselves, before they sign", async () => {
  const known = () => readFileSync(pathOf(mesh.folder, "west", "proxy", "links.json"), "utf8");
  const before = known();
  const { code, stderr } = await runNsmIn(
    mesh,
    "east",
    "authority",
    "rotate",
    "--at-once",
    "--state-dir",
    pathOf(mesh.folder, "identity-east"),
  );
  expect(code, stderr).toBe(0);
  await vi.waitFor(() => expect(known()).not.toBe(before), PATIENCE);
  await mesh.restart("proxy-east"); // shows a certificate of the new ones
  await mesh.daemon("proxy-east").waitFor("proxy serves", 60_000);
  await expectLinked();
  expect(await linksOf(mesh, "east")).toMatchObject([{ way: "direct" }]);
});

test("cut off, a link is down; joined again it is up", async () => {
  await mesh.cut();
  await vi.waitFor(
    async () => expect(await listed()).toMatchObject([[{ state: "down" }], [{ state: "down" }]]),
    PATIENCE,
  );
  await mesh.mend();
  await expectLinked();
});

test.for(["east", "west"] as const)(
  "removed in %s, it is removed in both, and made again it leaves nothing",
  async (where) => {
    const other = where === "east" ? "west" : "east";
    const removed = await runNsmIn(mesh, where, "link", "remove", other);
    expect(removed).toMatchObject({ code: 0, stderr: `${other} is not linked any more, on both sides\n` });
    await expectUnlinked();
    const before = await takeSettledInventory();
    expect(await runNsmIn(mesh, where, "link", "remove", other)).toMatchObject({ code: 4 });

    await expectJoined();
    await expectLinked();
    expect(await runNsmIn(mesh, where, "link", "remove", other)).toMatchObject({ code: 0 });
    await expectUnlinked();
    await expectNothingLeft(before);
    await expectJoined();
    await expectLinked();
  },
);

test("a side that nobody can dial is linked all the same, through a tunnel", async () => {
  await runNsmIn(mesh, "west", "link", "remove", "east");
  await expectUnlinked();
  const nft = (...words: readonly string[]) =>
    execFileSync("nsenter", [`--net=/run/netns/${mesh.namespace("node3").name}`, "--", "nft", ...words]);
  nft("add table inet closed");
  try {
    nft("add chain inet closed in { type filter hook input priority 0 ; }");
    nft("add rule inet closed in iifname underlay tcp dport 5004 tcp flags & (syn|ack) == syn drop");
    await expectJoined();
    await expectLinked();
    expect(await linksOf(mesh, "east")).toMatchObject([{ way: "tunnel" }]);
  } finally {
    nft("delete table inet closed");
  }
  await runNsmIn(mesh, "west", "link", "remove", "east");
  await expectUnlinked();
});

test("tokens that are cut, expired or one's own are refused with what to do, and leave nothing", async () => {
  const token = await tokenOf(mesh, "east");
  const cut = await join(token.slice(0, -5));
  expect(cut.code).toBe(2);
  expect(cut.stderr).toContain("copy the whole line that nsm link token printed");
  expect((await join("hello")).stderr).toContain("it does not begin with nsm1.");

  const own = await runNsmIn(mesh, "east", "link", "join", token);
  expect(own.stderr).toContain("both domains are called east");

  const long = JSON.parse(await tokenOf(mesh, "east", "-o", "json"));
  const lifeMs = Date.parse(long.expires) - Date.now();
  expect(lifeMs).toBeLessThanOrEqual(15 * 60_000);
  expect(lifeMs).toBeGreaterThan(14 * 60_000);

  const short = await tokenOf(mesh, "east", "--expires", "1s");
  await new Promise((resolve) => setTimeout(resolve, 1100));
  expect((await join(short)).stderr).toMatch(/this token expired at .*: make a new one/);

  const { code, stderr } = await runNsmIn(mesh, "east", "link", "token", "--expires", "2d");
  expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining("--expires") });
  await expectUnlinked();
});

test.for([
  ["proxy-east", "domain joins with a token"],
  ["proxy-west", "domain joins with a token"],
  ["proxy-west", "domains are linked"],
] as const)(
  "%s killed in the middle of a join (%s): linked or not, but never half",
  async ([victim, moment]) => {
    const token = await tokenOf(mesh, "east");
    const seen = fresh(mesh.daemon("proxy-east"))(moment, 60_000);
    const joining = join(token);
    await seen;
    await mesh.daemon(victim).kill();
    await joining;
    mesh.start(victim);
    await mesh.daemon(victim).waitFor("proxy serves", 60_000);
    await vi.waitFor(async () => {
      const states = (await listed()).map((links) => links.map(({ state }) => state).join());
      expect([
        ["up", "up"],
        ["", ""],
      ]).toContainEqual(states);
    }, PATIENCE);
    await runNsmIn(mesh, "west", "link", "remove", "east");
    await expectUnlinked();
  },
);
