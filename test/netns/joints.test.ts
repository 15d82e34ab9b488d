// One link, two chains with the same addresses:   [client-a] c === in-a [link] out-a === s [server-a]
//                                                 [client-b] c === in-b [link] out-b === s [server-b]
import { execFileSync, fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { COMPILE_CACHE } from "../support/compile-cache.ts";
import type { JointsCall } from "../support/joints-process.ts";
import { createNamespace, eventually, inventory, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { probe, startEcho } from "../support/udp.ts";

const CLIENT = ["10.7.0.1", "fd07::1"] as const;
const SERVICE = ["10.7.0.2", "fd07::2"] as const;
const JOINT = {
  payload: "IP",
  clientAddresses: ["10.7.0.1/32", "fd07::1/128"],
  serviceAddresses: ["10.7.0.2/32", "fd07::2/128"],
} as const;
const MAC = {
  c: "02:00:00:00:00:01",
  in: "02:00:00:00:00:02",
  out: "02:00:00:00:00:03",
  s: "02:00:00:00:00:04",
};

/** A veth pair; each end knows the other's address, as for payload IP. Pods have their addresses, the link has none. */
function connect(
  pod: Namespace,
  name: string,
  link: Namespace,
  device: string,
  ends: readonly [string, string],
) {
  const [podMac, linkMac] = ends;
  execFileSync(
    "ip",
    `link add ${name} address ${podMac} netns ${pod.name} type veth peer name ${device} address ${linkMac} netns ${link.name}`.split(
      " ",
    ),
  );
  const [own, other] = name === "c" ? [CLIENT, SERVICE] : [SERVICE, CLIENT];
  for (const [ns, dev] of [
    [pod, name],
    [link, device],
  ] as const) {
    ns.ip(`link set ${dev} addrgenmode none`);
    ns.ip(`link set ${dev} up`);
  }
  for (const [i, address] of own.entries()) {
    pod.ip(`addr add ${address}/${i === 0 ? 32 : 128} dev ${name} nodad`);
    pod.ip(`route add ${other[i]} dev ${name}`);
    pod.ip(`neigh replace ${other[i]} lladdr ${linkMac} dev ${name} nud permanent`);
    link.ip(`neigh replace ${address} lladdr ${podMac} dev ${device} nud permanent`);
  }
}

async function startJoints(
  ns: Namespace,
): Promise<{ child: ChildProcess; call: (call: JointsCall) => Promise<void> }> {
  const child = fork(new URL("../support/joints-process.ts", import.meta.url), [], {
    env: { ...process.env, ...COMPILE_CACHE },
    execPath: "nsenter",
    execArgv: [`--net=/run/netns/${ns.name}`, process.execPath],
  });
  await once(child, "message");
  return {
    child,
    async call(call) {
      const ended = call.do === "stop" ? once(child, "exit") : once(child, "message");
      child.send(call);
      await ended;
    },
  };
}

describe.skipIf(!isRoot)("devices that are joined (needs root)", () => {
  const pods = new Map<string, Namespace>();
  let link: Namespace;
  let joints: Awaited<ReturnType<typeof startJoints>>;
  let before: string[];
  const pod = (name: string) => {
    const found = pods.get(name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  };

  beforeEach(async () => {
    link = createNamespace("link");
    before = inventory(link);
    for (const name of ["client-a", "server-a", "client-b", "server-b"])
      pods.set(name, createNamespace(name));
    joints = await startJoints(link);
  });
  afterEach(async () => {
    joints.child.kill("SIGKILL");
    await Promise.all([link, ...pods.values()].map((ns) => ns.kill()));
  });

  const wire = (chain: string) => {
    connect(pod(`client-${chain}`), "c", link, `in-${chain}`, [MAC.c, MAC.in]);
    connect(pod(`server-${chain}`), "s", link, `out-${chain}`, [MAC.s, MAC.out]);
  };
  const join = (chain: string) =>
    joints.call({ do: "join", key: chain, joint: { ...JOINT, up: `in-${chain}`, down: `out-${chain}` } });
  /** Whether a datagram of a client comes to a server and back, of either family. */
  const reach = async (client: string, server: string, timeoutMs = 300) => {
    const returned = await Promise.all(
      [0, 1].map(async (i) => {
        using echo = startEcho(pod(server), SERVICE[i] ?? "");
        const one = await probe(pod(client), CLIENT[i] ?? "", SERVICE[i] ?? "", echo.port, {
          count: 1,
          timeoutMs,
        });
        return one === 1;
      }),
    );
    return returned;
  };
  const reaches = (client: string, server: string) =>
    eventually(`${client} reaches ${server}`, async () => (await reach(client, server)).every(Boolean));

  test("chains with the same addresses stay apart, whatever addresses the link itself has", async () => {
    link.ip("addr add 10.7.0.2/32 dev lo");
    link.exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    for (const chain of ["a", "b"]) {
      wire(chain);
      await join(chain);
    }
    await reaches("client-a", "server-a");
    await reaches("client-b", "server-b");
    expect(await reach("client-a", "server-b")).toEqual([false, false]);
  });

  test("the devices may come later, and again", async () => {
    await join("a");
    wire("a");
    await reaches("client-a", "server-a");
    link.ip("link del in-a");
    expect(await reach("client-a", "server-a", 50).catch(() => "no device")).toBe("no device");
    connect(pod("client-a"), "c", link, "in-a", [MAC.c, MAC.in]);
    await reaches("client-a", "server-a");
  });

  test("what comes in by a joined device goes nowhere else", async () => {
    wire("a");
    link.ip("link del out-a");
    link.ip(`link add elsewhere type veth peer name far netns ${pod("server-b").name}`);
    pod("server-b").ip("link set far up");
    link.ip("link set elsewhere up");
    link.ip("route add default dev elsewhere");
    await join("a");
    expect(await probe(pod("client-a"), CLIENT[0], SERVICE[0], 9, { count: 2, timeoutMs: 100 })).toBe(0);
    expect(link.ip("neigh show dev elsewhere")).not.toContain(SERVICE[0]);
  });

  test.each(["IP", "ETHERNET"] as const)(
    "payload %s: before, between and after joints nothing comes out of the link elsewhere, nor to the link itself",
    async (payload) => {
      link.ip(`link add elsewhere type veth peer name far netns ${pod("server-b").name}`);
      pod("server-b").ip("link set far up");
      link.ip("link set elsewhere up");
      for (const family of ["ipv4", "ipv6"])
        link.exec("sh", "-c", `echo 1 > /proc/sys/net/${family}/conf/all/forwarding`);
      link.ip("addr add 192.0.2.1/32 dev lo");
      link.ip("link set lo up");
      link.ip("route add default dev elsewhere");
      link.ip("-6 route add default dev elsewhere");
      for (const [name, device] of [
        ["client-a", "c"],
        ["server-a", "s"],
      ] as const) {
        await joints.call({ do: "hold", device: name === "client-a" ? "in-a" : "out-a" });
        connect(pod(name), device, link, name === "client-a" ? "in-a" : "out-a", [
          device === "c" ? MAC.c : MAC.s,
          device === "c" ? MAC.in : MAC.out,
        ]);
        for (const address of ["198.51.100.7", "192.0.2.1"]) {
          pod(name).ip(`route add ${address} dev ${device}`);
          const mac = device === "c" ? MAC.in : MAC.out;
          pod(name).ip(`neigh replace ${address} lladdr ${mac} dev ${device} nud permanent`);
        }
        pod(name).ip(`-6 route add fd99::9 dev ${device}`);
        pod(name).ip(
          `neigh replace fd99::9 lladdr ${device === "c" ? MAC.in : MAC.out} dev ${device} nud permanent`,
        );
      }
      const expectNothingOut = async (when: string) => {
        using own = startEcho(link, "192.0.2.1");
        for (const [name, sources] of [
          ["client-a", CLIENT],
          ["server-a", SERVICE],
        ] as const) {
          const one = { count: 1, timeoutMs: 50 };
          await probe(pod(name), sources[0], "198.51.100.7", 9, one);
          await probe(pod(name), sources[1], "fd99::9", 9, one);
          await probe(pod(name), sources[0], "192.0.2.1", own.port, one);
        }
        expect(own.received, when).toBe(0);
        const asked = [link.ip("neigh show dev elsewhere"), link.ip("-6 neigh show dev elsewhere")].join();
        expect(asked, when).not.toMatch(/198\.51\.100\.7|fd99::9/);
      };
      const call = { do: "join", key: "a", joint: { ...JOINT, payload, up: "in-a", down: "out-a" } } as const;
      await expectNothingOut("before");
      await joints.call(call);
      await expectNothingOut("while joined");
      await joints.call({ do: "part", key: "a" });
      await expectNothingOut("after");
      await joints.call(call);
      joints.child.kill("SIGKILL");
      await once(joints.child, "exit");
      await expectNothingOut("after SIGKILL");
      joints = await startJoints(link);
      await expectNothingOut("after a restart");
      await joints.call({ do: "stop" });
      await expectNothingOut("after the end");
      joints = await startJoints(link);
      await joints.call(call);
      await joints.call({ do: "part", key: "a" });
      await joints.call({ do: "release", device: "out-a" });
      for (const device of ["in-a", "out-a", "elsewhere"]) link.ip(`link del ${device}`);
      await eventually("no rule is left", () => !/proto 15[89]/.test(inventory(link).join("\n")));
    },
  );

  test("parting and stopping leave nothing, and a restart removes what a killed one left", async () => {
    wire("a");
    await join("a");
    await reaches("client-a", "server-a");
    joints.child.kill("SIGKILL");
    await once(joints.child, "exit");
    expect(inventory(link).join("\n")).toContain("proto 158");
    joints = await startJoints(link);
    expect(inventory(link).join("\n")).not.toContain("proto 158");
    expect(await reach("client-a", "server-a", 100)).toEqual([false, false]);
    await join("a");
    await reaches("client-a", "server-a");
    await joints.call({ do: "part", key: "a" });
    expect(inventory(link).join("\n")).not.toContain("proto 158");
    await joints.call({ do: "stop" });
    for (const device of ["in-a", "out-a"]) link.ip(`link del ${device}`);
    await eventually("all is as before", () => inventory(link).join("\n") === before.join("\n"));
  });
});
