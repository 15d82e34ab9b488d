import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import { diffInventory, expectNothingLeft, takeInventory } from "../support/inventory.ts";
import type { InventoryOptions } from "../support/inventory.ts";
import { createNamespace } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";

function sh(command: string): void {
  execFileSync("sh", ["-c", command], { stdio: ["ignore", "ignore", "inherit"] });
}

function cleanup(command: string): void {
  onTestFinished(() => sh(command));
}

const inNamespace = (ns: Namespace, command: string) => sh(`nsenter --net=/run/netns/${ns.name} ${command}`);

/** Each plants one thing; the word must be in the report. */
const leaks: readonly {
  readonly what: string;
  readonly word: RegExp;
  readonly options?: (ns: Namespace) => InventoryOptions;
  readonly plant: (ns: Namespace) => void | Promise<void>;
}[] = [
  {
    what: "a named namespace",
    word: /namespaces:\n {2}\+ inventory-leak/,
    plant: () => {
      sh("ip netns add inventory-leak");
      cleanup("ip netns delete inventory-leak");
    },
  },
  {
    what: "the file of a namespace that is none",
    word: /\+ inventory-file \(no namespace\)/,
    plant: () => {
      writeFileSync("/run/netns/inventory-file", "");
      cleanup("rm /run/netns/inventory-file");
    },
  },
  {
    what: "a namespace without name, held by a process",
    word: /\+ without name, of .*sleep/,
    plant: async () => {
      const child = spawn("unshare", ["--net", "sleep", "60"]);
      onTestFinished(async () => {
        child.kill("SIGKILL");
        await once(child, "exit");
      });
      const own = execFileSync("readlink", ["/proc/self/ns/net"]).toString();
      while (execFileSync("readlink", [`/proc/${child.pid}/ns/net`]).toString() === own) continue;
      while (
        !execFileSync("readlink", [`/proc/${child.pid}/exe`])
          .toString()
          .includes("sleep")
      )
        continue;
    },
  },
  {
    what: "a link",
    word: /links of \S+:\n {2}\+ ifname=leak0/,
    plant: (ns) => ns.ip("link add leak0 type bridge") && undefined,
  },
  {
    what: "an alias of a link",
    word: /\+ ifname=lo .*ifalias=left behind/,
    plant: (ns) => inNamespace(ns, "ip link set lo alias 'left behind'"),
  },
  {
    what: "another name of a link",
    word: /altnames=\[second\]/,
    plant: (ns) => inNamespace(ns, "ip link property add dev lo altname second"),
  },
  {
    what: "a changed MTU",
    word: /\+ ifname=lo .*mtu=1400/,
    plant: (ns) => inNamespace(ns, "ip link set lo mtu 1400"),
  },
  {
    what: "an address",
    word: /\+ .*192\.0\.2\.7/,
    plant: (ns) => inNamespace(ns, "ip address add 192.0.2.7/32 dev lo"),
  },
  {
    what: "an address of IPv6",
    word: /\+ .*2001:db8::7/,
    plant: (ns) => inNamespace(ns, "ip address add 2001:db8::7/128 dev lo nodad"),
  },
  {
    what: "a route in the main table",
    word: /routes4 of \S+:\n {2}\+ dst=198\.51\.100\.0\/24/,
    plant: (ns) => inNamespace(ns, "ip route add 198.51.100.0/24 dev lo"),
  },
  {
    what: "a route in table 77",
    word: /\+ .*dst=198\.51\.100\.0\/24 .*table=77/,
    plant: (ns) => inNamespace(ns, "ip route add 198.51.100.0/24 dev lo table 77"),
  },
  {
    what: "a route of IPv6 in table 77",
    word: /routes6 of \S+:\n {2}\+ .*table=77/,
    plant: (ns) => inNamespace(ns, "ip -6 route add 2001:db8:1::/64 dev lo table 77"),
  },
  {
    what: "a rule",
    word: /rules4 of \S+:\n {2}\+ .*table=77/,
    plant: (ns) => inNamespace(ns, "ip rule add from 192.0.2.0/24 table 77"),
  },
  {
    what: "a rule of IPv6",
    word: /rules6 of \S+:\n {2}\+ .*table=77/,
    plant: (ns) => inNamespace(ns, "ip -6 rule add from 2001:db8::/64 table 77"),
  },
  {
    what: "a permanent neighbour",
    word: /neighbours of \S+:\n {2}\+ dst=192\.0\.2\.9/,
    plant: (ns) => {
      inNamespace(ns, "ip link add leak0 type veth peer name leak1");
      inNamespace(ns, "ip neighbour add 192.0.2.9 lladdr 02:00:00:00:00:01 dev leak0 nud permanent");
    },
  },
  {
    what: "an entry of a VXLAN's forwarding table",
    word: /forwarding of \S+:\n(.*\n)*? {2}\+ .*dst=192\.0\.2\.5/,
    plant: (ns) => {
      inNamespace(ns, "ip link add leak0 type vxlan id 7 dstport 4789");
      inNamespace(ns, "bridge fdb append 00:00:00:00:00:00 dst 192.0.2.5 dev leak0");
    },
  },
  {
    what: "a nexthop",
    word: /nexthops of \S+:\n {2}\+ id=77/,
    plant: (ns) => inNamespace(ns, "ip nexthop add id 77 dev lo"),
  },
  {
    what: "a table of nftables",
    word: /nft of \S+:\n {2}\+ table inet leak/,
    plant: (ns) => inNamespace(ns, "nft add table inet leak"),
  },
  {
    what: "a rule of nftables",
    word: /\+ table inet leak chain c udp dport 4789 drop/,
    plant: (ns) => {
      inNamespace(ns, "nft add table inet leak");
      inNamespace(ns, "nft add chain inet leak c");
      inNamespace(ns, "nft add rule inet leak c udp dport 4789 drop");
    },
  },
  {
    what: "a queueing discipline",
    word: /qdiscs of \S+:\n {2}\+ kind=htb/,
    plant: (ns) => inNamespace(ns, "tc qdisc add dev lo root htb"),
  },
  {
    what: "a changed sysctl",
    word: /sysctls of \S+:\n(.*\n)*? {2}\+ .*ip_forward:1/,
    plant: (ns) => inNamespace(ns, "sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"),
  },
  {
    what: "a listening TCP socket",
    word: /sockets of own:\n {2}\+ tcp LISTEN 127\.0\.0\.1:7777/,
    plant: async () => {
      const server = createServer().listen(7777, "127.0.0.1");
      onTestFinished(() => void server.close());
      await once(server, "listening");
    },
  },
  {
    what: "the UDP socket of a device",
    word: /sockets of \S+:\n(.*\n)*? {2}\+ udp UNCONN \S*:4789/,
    plant: (ns) => {
      inNamespace(ns, "ip link add leak0 type vxlan id 7 dstport 4789");
      inNamespace(ns, "ip link set leak0 up");
    },
  },
  {
    what: "a unix socket and its file",
    word: /\+ socket 0755 0:0 .*leak\.sock(.|\n)*\+ u_str LISTEN .*leak\.sock/,
    plant: async () => {
      const server = createServer().listen(join(tmpdir(), "leak.sock"));
      onTestFinished(() => void server.close());
      await once(server, "listening");
    },
  },
  {
    what: "a process",
    word: /processes:\n {2}\+ sleep 61/,
    plant: async () => {
      const child = spawn("sleep", ["61"]);
      onTestFinished(() => void child.kill("SIGKILL"));
      await once(child, "spawn");
    },
  },
  {
    what: "a descriptor of a long-lived process",
    word: /descriptors of daemon:\n {2}\+ \/etc\/hostname/,
    options: () => ({ daemons: new Map([["daemon", daemon().pid ?? 0]]) }),
    plant: async () => {
      daemon().stdin?.write("now\n");
      await once(daemon().stdout ?? daemon(), "data");
    },
  },
  {
    what: "a file in /run",
    word: /files:\n {2}\+ file 0600 0:0 \/run\/leak/,
    plant: () => {
      writeFileSync("/run/leak", "", { mode: 0o600 });
      onTestFinished(() => rmSync("/run/leak"));
    },
  },
  {
    what: "a folder in the temporary folder",
    word: /\+ folder 0755 0:0 .*\/leak/,
    plant: () => {
      mkdirSync(join(tmpdir(), "leak"), { mode: 0o755 });
      onTestFinished(() => rmSync(join(tmpdir(), "leak"), { recursive: true }));
    },
  },
  {
    what: "a complaint of the kernel",
    word: /kernel log:\n {2}\+ .*inventory test: refcount leak/,
    plant: () => writeFileSync("/dev/kmsg", "<6>inventory test: refcount leak\n"),
  },
  {
    what: "a mount",
    word: /mounts:\n {2}\+ \/run\/tmp\/mounted tmpfs/,
    plant: () => {
      sh("mkdir -p /run/tmp/mounted && mount -t tmpfs tmpfs /run/tmp/mounted");
      cleanup("umount /run/tmp/mounted && rmdir /run/tmp/mounted");
    },
  },
];

/** A process that opens a file when it is told to. */
let opener: ChildProcess | undefined;
function daemon(): ChildProcess {
  opener ??= spawn("sh", ["-c", "read _; exec 9</etc/hostname; echo open; read _"]);
  return opener;
}
afterAll(() => void opener?.kill("SIGKILL"));

describe("the inventory reports", () => {
  test.for(leaks)("$what", async ({ plant, word, options }) => {
    await using ns = createNamespace("inventory");
    const before = await takeInventory(options?.(ns));
    await plant(ns);
    const difference = diffInventory(before, await takeInventory(options?.(ns)));
    expect(difference).toMatch(word);
  });
});

test("nothing is reported when nothing changed, and a namespace that goes leaves nothing", async () => {
  const before = await takeInventory();
  const ns = createNamespace("inventory");
  ns.ip("link add leak0 type vxlan id 7 dstport 4789");
  expect(diffInventory(before, await takeInventory())).toContain(ns.name);
  await ns.kill();
  await expectNothingLeft(before);
});

test("what stays away is reported as missing", async () => {
  await using ns = createNamespace("inventory");
  const before = await takeInventory();
  ns.ip("link set lo down");
  expect(diffInventory(before, await takeInventory())).toMatch(/- ifname=lo .*UP/);
});

test("an inventory of four namespaces takes less than a second", async () => {
  await using stack = new AsyncDisposableStack();
  for (let i = 0; i < 4; i++) stack.use(createNamespace("inventory"));
  const started = performance.now();
  await takeInventory();
  expect(performance.now() - started).toBeLessThan(1000);
});
