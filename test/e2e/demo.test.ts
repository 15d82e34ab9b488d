import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { markOf } from "../../cli/demo/down.ts";
import { argumentsOf, findProcesses, hasEnvironment, signalAll } from "../../cli/demo/processes.ts";
import { expectNothingLeft, takeInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";

const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");

const Wire = z.object({
  client: z.string(),
  service: z.string(),
  endpoint: z.string(),
  mechanism: z.enum(["KERNEL", "WIREGUARD", "VXLAN"]),
  interface: z.string(),
  addresses: z.array(z.string()),
  mtu: z.number(),
  rttMs: z.number(),
  pingsSent: z.number(),
  pingsReceived: z.number(),
});
const Scenario = z.object({
  ok: z.boolean(),
  setupMs: z.number().nullable(),
  healGapMs: z.number().nullable(),
  packetsLost: z.number().nullable(),
});
const Document = z.object({
  run: z.string(),
  firstPingMs: z.number().nullable(),
  wires: z.array(Wire),
  unavailable: z.array(z.object({ mechanism: z.string(), reason: z.string(), remedy: z.string() })),
  scenarios: z.record(z.string(), Scenario),
  removed: z.boolean(),
});

/** The words before a command that let it see a machine without user-space tunnels. */
const WITHOUT_TUN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/net && exec "$@"', "sh"];

let before: Inventory;
beforeAll(async () => {
  before = await takeInventory();
});

/** `nsm demo …` as a process of its own. */
class Demo {
  readonly #child: ChildProcess;
  #heard = Promise.withResolvers<void>();
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], wrapper: readonly string[] = []) {
    const [program = "", ...rest] = [...wrapper, process.execPath, NSM, "demo", ...args];
    this.#child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stdout?.on("data", (data: Buffer) => {
      this.stdout += data.toString();
      this.#hear();
    });
    this.#child.stderr?.on("data", (data: Buffer) => {
      this.stderr += data.toString();
      this.#hear();
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  #hear(): void {
    this.#heard.resolve();
    this.#heard = Promise.withResolvers();
  }

  async says(words: string): Promise<void> {
    while (!(this.stdout + this.stderr).includes(words)) await this.#heard.promise;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  stopReading(): void {
    this.#child.stdout?.destroy();
  }

  async ended(): Promise<number | string | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "close");
    return this.#child.exitCode ?? this.#child.signalCode;
  }
}

function down(run: string): unknown {
  const result = spawnSync(process.execPath, [NSM, "demo", "down", "--run", run, "--output", "json"], {
    encoding: "utf8",
  });
  return JSON.parse(result.stdout);
}

test("the demo pings over a wire of each mechanism, says so as JSON and leaves nothing behind", async () => {
  const demo = new Demo(["--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const document = Document.parse(JSON.parse(demo.stdout));
  expect(document.wires.map((wire) => [wire.interface, wire.mechanism])).toEqual([
    ["nsm-1", "KERNEL"],
    ["nsm-2", "WIREGUARD"],
    ["nsm-3", "VXLAN"],
  ]);
  for (const wire of document.wires) {
    expect(wire).toMatchObject({
      client: "client",
      pingsSent: 5,
      addresses: [expect.stringContaining("172.16.")],
    });
    expect(wire.pingsReceived).toBeGreaterThanOrEqual(3);
  }
  expect(document).toMatchObject({ unavailable: [], removed: true });
  expect(document.firstPingMs).toBeLessThan(10_000);
  expect(document.scenarios).toEqual({
    local: { ok: true, setupMs: expect.any(Number), healGapMs: null, packetsLost: expect.any(Number) },
    chain: {
      ok: true,
      setupMs: expect.any(Number),
      healGapMs: expect.any(Number),
      packetsLost: expect.any(Number),
    },
    heal: {
      ok: true,
      setupMs: expect.any(Number),
      healGapMs: expect.any(Number),
      packetsLost: expect.any(Number),
    },
  });
  await expectNothingLeft(before);
});

test("scenario chain alone replaces a link that dies, and keeps the wires beside it", async () => {
  const demo = new Demo(["--scenario", "chain", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires } = Document.parse(JSON.parse(demo.stdout));
  expect(Object.keys(scenarios)).toEqual(["chain"]);
  expect(wires).toMatchObject([{ client: "chain-client", interface: "nsm-1", mechanism: "KERNEL" }]);
  expect(demo.stderr).toContain("port 8080 passes, port 80 does not");
  for (const wire of ["client – firewall", "firewall – chain-1", "chain-3 – gateway"])
    expect(demo.stderr).toMatch(new RegExp(`${wire} .* kept`));
  await expectNothingLeft(before);
});

test("scenario heal alone kills the endpoint in use and measures the gap until the spare answers", async () => {
  const demo = new Demo(["--scenario", "heal", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires, firstPingMs } = Document.parse(JSON.parse(demo.stdout));
  expect(Object.keys(scenarios)).toEqual(["heal"]);
  expect(wires).toMatchObject([{ client: "heal-client", interface: "nsm-1", mechanism: "KERNEL" }]);
  expect(firstPingMs).toBeGreaterThan(0);
  const { healGapMs, packetsLost } = scenarios["heal"] ?? {};
  expect(packetsLost).toBeGreaterThan(0);
  expect(healGapMs).toBeGreaterThan(0);
  const [, victim, spare] = /killed (heal-\d)[^]*healed: (heal-\d) answers/.exec(demo.stderr) ?? [];
  expect(new Set([victim, spare])).toEqual(new Set(["heal-1", "heal-2"]));
  await expectNothingLeft(before);
});

test("a scenario that does not exist is named beside those that do", async () => {
  const demo = new Demo(["--scenario", "local,nothing"]);
  expect(await demo.ended()).toBe(2);
  expect(demo.stderr).toContain('there is no scenario "nothing": choose among local, chain, heal');
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

test.for(["recorded in", "joined", "started", "nsm-1 is up", "pinged over", "killed heal-"])(
  "killed with SIGKILL when it says '%s', it is removed by demo down",
  async (words) => {
    const demo = new Demo([]);
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
  const one = new Demo(["--keep", "--run", "one"]);
  const two = new Demo(["--output", "json", "--run", "two"]);
  expect([await one.ended(), await two.ended()], one.stderr + two.stderr).toEqual([0, 0]);
  expect(Document.parse(JSON.parse(two.stdout))).toMatchObject({ run: "two", removed: true });

  const three = new Demo(["--keep", "--run", "three"]);
  expect(await three.ended(), three.stderr).toBe(0);
  expect(three.stdout).toContain("run one is there, too");
  expect(three.stdout).not.toContain("run two is there, too");
  expect(down("three")).toEqual({ runs: ["three"], removed: true });
  const links = spawnSync("ip", ["-n", "nsm-one-pod-client", "link", "show", "nsm-2"]);
  expect(links.status).toBe(0);
  expect(down("one")).toEqual({ runs: ["one"], removed: true });
  await expectNothingLeft(before);
});

test("without /dev/net/tun the WIREGUARD wire is named with its remedy, the others are up, and the code is 3", async () => {
  const demo = new Demo(["--output", "json"], WITHOUT_TUN);
  expect(await demo.ended(), demo.stderr).toBe(3);
  const document = Document.parse(JSON.parse(demo.stdout));
  expect(document.wires.map((wire) => wire.mechanism)).toEqual(["KERNEL", "VXLAN"]);
  expect(document.unavailable).toEqual([
    {
      mechanism: "WIREGUARD",
      reason: expect.stringContaining("/dev/net/tun"),
      remedy: expect.stringContaining("modprobe tun"),
    },
  ]);
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
