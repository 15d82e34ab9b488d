import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { markOf } from "../../cli/demo/down.ts";
import { argumentsOf, findProcesses, hasEnvironment, signalAll } from "../../cli/demo/processes.ts";
import { Demo, Document, WITHOUT_TUN, down, wiresOf } from "../support/demo.ts";
import { expectNothingLeft, takeInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";

let before: Inventory;
beforeAll(async () => {
  before = await takeInventory();
});

test("the demo tours two clusters, says so as JSON and leaves nothing behind", async () => {
  const startMs = performance.now();
  const demo = new Demo(["--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(60_000);
  const document = Document.parse(JSON.parse(demo.stdout));
  expect(wiresOf(document.wires, "client").map((wire) => [wire.interface, wire.mechanism])).toEqual([
    ["nsm-1", "KERNEL"],
    ["nsm-2", "WIREGUARD"],
    ["nsm-3", "VXLAN"],
  ]);
  for (const wire of document.wires) {
    expect(wire).toMatchObject({ pingsSent: 5, addresses: [expect.stringContaining("172.16.")] });
    expect(wire.pingsReceived).toBeGreaterThanOrEqual(3);
  }
  expect(document).toMatchObject({ unavailable: [], removed: true });
  expect(document.firstPingMs).toBeLessThan(10_000);
  expect(document.firstPingBetweenClustersMs).toBeLessThan(15_000);
  expect(document.linkMs).toBeGreaterThan(0);
  const number: unknown = expect.any(Number);
  const plain = {
    ok: true,
    setupMs: number,
    rttMs: number,
    healGapMs: null,
    failBackGapMs: null,
    packetsLost: number,
  };
  expect(document.scenarios).toEqual({
    local: plain,
    clusters: plain,
    chain: { ...plain, healGapMs: number },
    heal: { ...plain, healGapMs: number },
    failover: { ...plain, healGapMs: number, failBackGapMs: number },
  });
  expect(demo.stderr).toMatch(/^east\n├─ client +nsm-1 +KERNEL .* ══ nse-1\n/m);
  expect(demo.stderr).toMatch(/^└─ bank-client .* ══ west ══ bank-west$/m);
  expect(demo.stderr).toMatch(/^SCENARIO +SET-UP +RTT +GAP +GAP BACK +LOST *$/m);
  expect(demo.stderr).toMatch(/^failover +ok +\d+ ms +[\d.]+ ms +\d+ ms +\d+ ms +\d+ *$/m);
  expect(demo.stderr).toMatch(
    /^first reply after [\d.]+ s, clusters linked within [\d.]+ s, first reply between them after [\d.]+ s$/m,
  );
  await expectNothingLeft(before);
});

test("a scenario that does not exist is named beside those that do", async () => {
  const demo = new Demo(["--scenario", "local,nothing"]);
  expect(await demo.ended()).toBe(2);
  expect(demo.stderr).toContain(
    'there is no scenario "nothing": choose among local, clusters, chain, heal, failover',
  );
});

test("a run that fails says in its JSON what the machine lacks and which scenario it was", async () => {
  const demo = new Demo(["--run", "broken", "--output", "json"], WITHOUT_TUN);
  await demo.says("started");
  const registry = findProcesses(
    (pid) => hasEnvironment(pid, markOf("broken")) && argumentsOf(pid).at(-1) === "registry",
  );
  expect(registry).toHaveLength(1);
  signalAll(registry, "SIGKILL");
  expect(await demo.ended()).toBe(1);
  expect(demo.stderr).toContain("registry ended (SIGKILL)");
  expect(Document.parse(JSON.parse(demo.stdout))).toMatchObject({
    wires: [],
    unavailable: [{ mechanism: "WIREGUARD" }],
    scenarios: { local: { ok: false } },
    removed: true,
  });
  await expectNothingLeft(before);
});

test("a kept demo runs every part as a process of its own place and group, until it is taken down", async () => {
  const demo = new Demo(["--keep", "--run", "kept", "--scenario", "local"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  expect(demo.stdout).toContain("ip netns exec nsm-kept-pod-client ip address");
  expect(demo.stdout).toMatch(/bin\/nsm\.js demo down --run kept$/m);
  const asking = /^Ask its manager.*\n((?: {2}.*\n)+)/m.exec(demo.stdout)?.[1];
  const asked = spawnSync("bash", ["-euc", asking ?? "false"], { encoding: "utf8" });
  expect(asked.status, asked.stderr).toBe(0);
  expect(asked.stdout).toMatch(/^Interface +nsm-1$/m);
  const [, socket = ""] = /^ {2}curl --unix-socket (\S+) http/m.exec(demo.stdout) ?? [];
  expect(statSync(socket).isSocket()).toBe(true);

  const parts = readdirSync("/proc")
    .filter(
      (pid) => /^\d+$/.test(pid) && /\/bin\/nsm\.js\0/.test(readFileSync(`/proc/${pid}/cmdline`, "latin1")),
    )
    .map((pid) => {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      return {
        role: readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").at(-2),
        gid: /^Gid:\t(\d+)/m.exec(status)?.[1],
        capabilities: BigInt(`0x${/^CapEff:\t(\w+)/m.exec(status)?.[1]}`),
      };
    });
  expect(parts.map(({ role }) => role ?? "").sort()).toEqual(
    ["forwarder", "forwarder", "identity", "nsc", "nse", "nse", "nse", "nsmgr", "nsmgr", "registry"].sort(),
  );
  const groups = new Map(parts.map(({ role, gid }) => [role, gid]));
  expect(new Set(groups.values()).size).toBe(6);
  const CAP_SYS_ADMIN = 1n << 21n;
  for (const { role, capabilities } of parts)
    expect((capabilities & CAP_SYS_ADMIN) !== 0n, role).toBe(role === "forwarder");

  const again = new Demo(["--run", "kept"]);
  expect(await again.ended()).toBe(1);
  expect(again.stderr).toContain('a run named kept exists: end it with "nsm demo down --run kept"');
  expect(down("kept")).toEqual({ runs: ["kept"], removed: true });
  await expectNothingLeft(before);
});

test("a kept tour of two clusters tells how to look at its links, which works", async () => {
  const demo = new Demo(["--keep", "--run", "linked", "--scenario", "clusters"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  expect(demo.stdout).toMatch(
    /east: nsm link token[^]*west: nsm link join nsm1\.[^]*west: nsm export web --to east/,
  );
  const commands = /^Ask its manager.*\n((?: {2}.*\n)+)And the proxy.*\n((?: {2}.*\n)+)/m.exec(demo.stdout);
  const script = (commands?.slice(1) ?? []).join("");
  const asked = spawnSync("bash", ["-euc", script || "false"], { encoding: "utf8" });
  expect(asked.status, asked.stderr).toBe(0);
  expect(asked.stdout).toMatch(/^west +up \d+s .* edge,web +-$/m);
  expect(asked.stdout).toMatch(/^web +west +IP/m);
  expect(down("linked")).toEqual({ runs: ["linked"], removed: true });
  await expectNothingLeft(before);
});

test.for([
  ["all", "recorded in"],
  ["all", "joined"],
  ["all", "started"],
  ["all", "nsm-1 is up"],
  ["all", "pinged over"],
  ["clusters", "nsm link token"],
  ["clusters", "first reply from the other cluster"],
  ["heal", "killed heal-"],
  ["failover", "cut west off"],
] as const)(
  "scenario %s killed with SIGKILL when it says '%s' is removed by demo down",
  async ([played, words]) => {
    const demo = new Demo(played === "all" ? [] : ["--scenario", played]);
    await demo.says(words);
    demo.kill("SIGKILL");
    expect(await demo.ended()).toBe("SIGKILL");
    expect(down("all")).toMatchObject({ removed: true });
    await expectNothingLeft(before);
  },
);

test("interrupted, it removes everything itself", async () => {
  const demo = new Demo([]);
  await demo.says("started");
  demo.kill("SIGINT");
  expect(await demo.ended()).toBe(130);
  await expectNothingLeft(before);
});

test("when nobody reads its output any more, it removes everything", async () => {
  const demo = new Demo([]);
  await demo.says("recorded in");
  demo.stopReading();
  expect(await demo.ended()).toBe(130);
  await expectNothingLeft(before);
});

test("demo down stops a run whose driver still works", async () => {
  const demo = new Demo(["--run", "busy"]);
  await demo.says("joined");
  expect(down("busy")).toEqual({ runs: ["busy"], removed: true });
  expect(await demo.ended()).toBe(130);
  await expectNothingLeft(before);
});

test("two demos run at once, and taking one down leaves the other alone", async () => {
  const one = new Demo(["--keep", "--run", "one", "--scenario", "local"]);
  const two = new Demo(["--output", "json", "--run", "two", "--scenario", "clusters"]);
  expect([await one.ended(), await two.ended()], one.stderr + two.stderr).toEqual([0, 0]);
  expect(Document.parse(JSON.parse(two.stdout))).toMatchObject({ run: "two", removed: true });

  const three = new Demo(["--keep", "--run", "three", "--scenario", "local"]);
  expect(await three.ended(), three.stderr).toBe(0);
  expect(three.stdout).toContain("run one is there, too");
  expect(three.stdout).not.toContain("run two is there, too");
  expect(down("three")).toEqual({ runs: ["three"], removed: true });
  const links = spawnSync("ip", ["-n", "nsm-one-pod-client", "link", "show", "nsm-2"]);
  expect(links.status).toBe(0);
  expect(down("one")).toEqual({ runs: ["one"], removed: true });
  await expectNothingLeft(before);
});

test("without root it says in one line what it needs", async () => {
  const demo = new Demo([], ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
  expect(await demo.ended()).toBe(1);
  expect(demo.stderr).toMatch(/^nsm: the demo makes network namespaces and needs root: run it with sudo\n$/);
});

test("an unknown run is named beside those that there are", async () => {
  const demo = new Demo(["down", "--run", "nobody"]);
  expect(await demo.ended()).toBe(1);
  expect(demo.stderr).toContain("no run named nobody is recorded");
});
