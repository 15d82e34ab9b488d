// One firewall, two connections with the same addresses:   [client-a] c === in-a [firewall] out-a === s [server-a]
//                                                          [client-b] c === in-b [firewall] out-b === s [server-b]
import { execFileSync, fork, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { JUDGED, counterOf } from "../../nse/firewall/script.ts";
import { closeFd, connectSocket, openSocket, sendSync } from "../../sdk/native.ts";
import { COMPILE_CACHE } from "../support/compile-cache.ts";
import type { FilterCall } from "../support/filter-process.ts";
import type { JointsCall } from "../support/joints-process.ts";
import { createNamespace, eventually, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { bindUdp, probe, startEcho, startStream } from "../support/udp.ts";

const CLIENT = "10.1.0.2";
const SERVER = "10.2.0.2";
const INNER = "02:00:00:00:00:01";
const OUTER = "02:00:00:00:00:02";

const startFilter = (ns: Namespace) => startInside(ns, "filter-process.ts");
const startJoints = (ns: Namespace) => startInside(ns, "joints-process.ts", `${JUDGED.value}`);

async function startInside(ns: Namespace, file: string, ...args: readonly string[]) {
  const child: ChildProcess = fork(new URL(`../support/${file}`, import.meta.url), args, {
    env: { ...process.env, ...COMPILE_CACHE },
    execPath: "nsenter",
    execArgv: [`--net=/run/netns/${ns.name}`, process.execPath],
  });
  await once(child, "message");
  return {
    async kill() {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
    async call(call: FilterCall | JointsCall) {
      const done = once(child, "message");
      child.send(call);
      await done;
    },
  };
}

/** Ends by itself when there is no way any more. */
function startFlood(ns: Namespace, target: string, port: number): ChildProcess {
  return fork(new URL("../support/flood-process.ts", import.meta.url), [target, `${port}`], {
    execPath: "nsenter",
    execArgv: [`--net=/run/netns/${ns.name}`, process.execPath],
    timeout: 30_000,
  });
}

/** The whole daemon, with nobody who gives it an identity. */
function startFirewall(ns: Namespace, rules: string, folder: string): ChildProcess {
  const main = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
  const args = [`--net=/run/netns/${ns.name}`, process.execPath, main, "nse", "firewall"];
  const env = {
    ...process.env,
    NSM_SERVICE_NAMES: "service",
    NSM_ACL_CONFIG_PATH: rules,
    SPIFFE_ENDPOINT_SOCKET: `unix://${folder}/nobody.sock`,
  };
  const child = spawn("nsenter", args, { env, stdio: "ignore" });
  const timer = setTimeout(() => child.kill("SIGTERM"), 5000);
  child.once("exit", () => clearTimeout(timer));
  return child;
}

describe.skipIf(!isRoot)("the firewall's table (needs root)", () => {
  const pods = new Map<string, Namespace>();
  let firewall: Namespace;
  let filter: Awaited<ReturnType<typeof startFilter>>;
  const pod = (name: string) => {
    const found = pods.get(name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  };

  beforeEach(async () => {
    firewall = createNamespace("firewall");
    firewall.exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
    for (const chain of ["a", "b"]) {
      for (const [side, device, inner, address, other] of [
        ["client", `in-${chain}`, "c", CLIENT, SERVER],
        ["server", `out-${chain}`, "s", SERVER, CLIENT],
      ] as const) {
        const ns = createNamespace(`${side}-${chain}`);
        pods.set(`${side}-${chain}`, ns);
        const words = `link add ${inner} address ${INNER} netns ${ns.name} type veth peer name ${device} address ${OUTER} netns ${firewall.name}`;
        execFileSync("ip", words.split(" "));
        ns.ip(`link set ${inner} up`);
        firewall.ip(`link set ${device} up`);
        ns.ip(`addr add ${address}/32 dev ${inner}`);
        ns.ip(`route add ${other} dev ${inner}`);
        ns.ip(`neigh replace ${other} lladdr ${OUTER} dev ${inner} nud permanent`);
        firewall.ip(`neigh replace ${address} lladdr ${INNER} dev ${device} nud permanent`);
      }
      const table = chain === "a" ? 101 : 102;
      // As an earlier life of the firewall has left them.
      firewall.ip(`rule add iif in-${chain} table ${table} protocol 158`);
      firewall.ip(`route add default dev out-${chain} table ${table}`);
      firewall.ip(`rule add iif out-${chain} table ${table + 10} protocol 158`);
      firewall.ip(`route add default dev in-${chain} table ${table + 10}`);
    }
    filter = await startFilter(firewall);
  });
  afterEach(async () => {
    await filter.kill();
    await Promise.all([firewall, ...pods.values()].map((ns) => ns.kill()));
  });

  test("counters of other tables in the namespace are none of its own", async () => {
    const others = "add table ip other; add counter ip other b; add counter ip other default";
    firewall.exec("nft", others);
    for (const name of ["first", "second"])
      await filter.call({ do: "set", rules: `default: deny\nrules: [{ name: ${name}, action: allow }]` });
    const counters = firewall.exec("nft", "list", "counters");
    expect(counters).toContain(counterOf({ name: "second" }));
    expect(counters).not.toContain(counterOf({ name: "first" }));
    expect(counters).toMatch(/table ip other \{\s*counter b/);
  });

  test("nothing passes while a killed firewall is started again", async () => {
    using echo = startEcho(pod("server-a"), SERVER);
    await filter.call({ do: "set", rules: "default: deny" });
    const stream = startStream(pod("client-a"), CLIENT, SERVER, echo.port, 1);
    try {
      for (let i = 0; i < 3; i++) {
        await filter.kill();
        filter = await startFilter(firewall);
      }
    } finally {
      expect((await stream.stop()).sent).toBeGreaterThan(100);
    }
    expect(echo.received).toBe(0);
    await filter.call({ do: "set", rules: "default: allow" });
    await eventually("it passes what it may", async () => {
      return (await probe(pod("client-a"), CLIENT, SERVER, echo.port, { count: 1 })) === 1;
    });
  });

  test.each([
    ["a wrong file", "rules: 7"],
    ["no identity", "default: deny"],
  ])("a start that fails for %s opens nothing that a killed firewall had closed", async (_, rules) => {
    using echo = startEcho(pod("server-a"), SERVER);
    await filter.call({ do: "set", rules: "default: deny" });
    await filter.kill();
    const folder = mkdtempSync(join(tmpdir(), "nsm-firewall-"));
    try {
      writeFileSync(join(folder, "rules.yaml"), rules);
      const started = startFirewall(firewall, join(folder, "rules.yaml"), folder);
      const stream = startStream(pod("client-a"), CLIENT, SERVER, echo.port, 1);
      await once(started, "exit");
      await stream.stop();
    } finally {
      rmSync(folder, { recursive: true });
    }
    expect(echo.received).toBe(0);
  });

  test("nothing passes while the namespace of a killed firewall ends", async () => {
    const joints = await startJoints(firewall);
    using echo = startEcho(pod("server-a"), SERVER);
    try {
      await filter.call({ do: "set", rules: "default: allow" });
      const addresses = { clientAddresses: [`${CLIENT}/32`], serviceAddresses: [`${SERVER}/32`] };
      await joints.call({
        do: "join",
        key: "a",
        joint: { payload: "IP", up: "in-a", down: "out-a", ...addresses },
      });
      expect(await probe(pod("client-a"), CLIENT, SERVER, echo.port)).toBe(3);
      await filter.call({ do: "set", rules: "default: deny" });
    } finally {
      await Promise.all([joints.kill(), filter.kill()]);
    }
    const { received } = echo;
    const flood = startFlood(pod("client-a"), SERVER, echo.port);
    const ended = once(flood, "exit");
    await once(flood, "message");
    await firewall.kill();
    expect(await ended).toEqual([0, null]);
    expect(echo.received).toBe(received);
  });

  test("fragments of connections with the same addresses are put together each by itself", async () => {
    for (const chain of ["a", "b"])
      await filter.call({ do: "join", key: chain, devices: [`in-${chain}`, `out-${chain}`] });
    await filter.call({ do: "set", rules: "default: allow" });
    using a = startEcho(pod("server-a"), SERVER, 9000);
    using b = startEcho(pod("server-b"), SERVER, 9000);
    const [head, tail] = fragments(9000);
    sendRaw(pod("client-a"), head);
    sendRaw(pod("client-b"), tail);
    await eventually("both have come to the firewall", () => {
      const received = (device: string) =>
        /RX:.*\n\s*\d+\s+[1-9]/.test(firewall.ip(`-s link show ${device}`));
      return received("in-a") && received("in-b");
    });
    await delay(100);
    expect([a.received, b.received]).toEqual([0, 0]);
    sendRaw(pod("client-b"), head);
    await eventually("the rest of b's own has come", () => b.received === 1);
    expect(a.received).toBe(0);
  });

  test("flows of a connection that has ended are not those of the next one", async () => {
    await filter.call({ do: "set", rules: "rules: [{ action: allow, protocol: udp, ports: 9000 }]" });
    await filter.call({ do: "join", key: "a", devices: ["in-a", "out-a"] });
    const client = bindUdp(pod("client-a"), CLIENT, 5000);
    using echo = startEcho(pod("server-a"), SERVER, 9000);
    await eventually("a's flow is there", () => {
      client.send("x", 9000, SERVER);
      return echo.received > 0;
    });
    client.close();
    await filter.call({ do: "part", key: "a" });
    await filter.call({ do: "join", key: "b", devices: ["in-b", "out-b"] });
    using other = startEcho(pod("client-b"), CLIENT, 5000);
    const server = bindUdp(pod("server-b"), SERVER, 9000);
    const answer = once(server, "message", { signal: AbortSignal.timeout(300) });
    server.send("y", 5000, CLIENT);
    await answer.catch(() => undefined);
    server.close();
    expect(other.received).toBe(0);
  });
});

/** A UDP datagram in two parts (RFC 791 §3.1). */
function fragments(port: number): readonly [Buffer, Buffer] {
  const udp = Buffer.alloc(8 + 24);
  udp.writeUInt16BE(5000, 0);
  udp.writeUInt16BE(port, 2);
  udp.writeUInt16BE(udp.length, 4);
  return [fragment(udp.subarray(0, 16), 0x2000), fragment(udp.subarray(16), 2)];
}

/** The kernel fills in length and checksum (raw(7), IP_HDRINCL). */
function fragment(payload: Buffer, flagsAndOffset: number): Buffer {
  const header = Buffer.alloc(20);
  header[0] = 0x45;
  header.writeUInt16BE(0x4242, 4);
  header.writeUInt16BE(flagsAndOffset, 6);
  header[8] = 64;
  header[9] = 17;
  header.set(CLIENT.split(".").map(Number), 12);
  header.set(SERVER.split(".").map(Number), 16);
  return Buffer.concat([header, payload]);
}

function sendRaw(ns: Namespace, packet: Buffer): void {
  ns.inside(() => {
    const fd = openSocket(2, 3, 255);
    try {
      const to = Buffer.alloc(16);
      to.writeUInt16LE(2, 0);
      to.set(SERVER.split(".").map(Number), 4);
      connectSocket(fd, to);
      sendSync(fd, packet);
    } finally {
      closeFd(fd);
    }
  });
}
