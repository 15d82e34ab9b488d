/**
 * Two clusters whose nodes have the same addresses, each behind a gateway, and a pod on each node.
 *
 *     [nsc]                                                                              [nse]
 *       :                                                                                  :
 *     [node 1] 192.0.2.11 --- 192.0.2.1 [gate 1] ===== [gate 2] 192.0.2.1 --- 192.0.2.11 [node 2]
 *              fd02::b        fd02::1                            fd02::1      fd02::b
 *
 * Outside they are 198.51.100.11 and 203.0.113.11, 2001:db8:e::b and 2001:db8:f::b: by translation one to one, which lets anybody in, or
 * by masquerading, which lets in only what answers, and chooses ports as it likes.
 */
import { createNamespace, inventory } from "./netns.ts";
import type { Namespace } from "./netns.ts";
import { startNode } from "./node.ts";
import type { Node } from "./node.ts";

export type Gate = "one-to-one" | "masquerade";

export const INNER = { v4: "192.0.2.11", v6: "fd02::b" } as const;
export const OUTER = [
  { v4: "198.51.100.11", v6: "2001:db8:e::b" },
  { v4: "203.0.113.11", v6: "2001:db8:f::b" },
] as const;

export interface TwoClusters extends AsyncDisposable {
  readonly nsc: Namespace;
  readonly nse: Namespace;
  readonly node1: Namespace;
  readonly node2: Namespace;
  /** The data planes of the nodes; a test that restarts one puts the new one here. */
  one: Node;
  two: Node;
  readonly all: readonly Namespace[];
  readonly before: readonly (readonly string[])[];
  /** Nothing passes between the clusters, or everything again. */
  cut(): void;
  mend(): void;
}

export async function startTwoClusters(
  gates: readonly [Gate, Gate],
  environment: Parameters<typeof startNode>[1] = {},
): Promise<TwoClusters> {
  await using guard = new AsyncDisposableStack();
  const stack = guard.use(new AsyncDisposableStack());
  const make = (label: string) => stack.use(createNamespace(label));
  const [node1, node2, gate1, gate2] = [make("n1"), make("n2"), make("g1"), make("g2")];
  const [nsc, nse] = [make("nsc"), make("nse")];
  gate1.ip(`link add t0 type veth peer name t0 netns ${gate2.name}`);
  for (const [i, gate] of [gate1, gate2].entries()) {
    const node = i === 0 ? node1 : node2;
    gate.ip(`link add u0 type veth peer name u0 netns ${node.name}`);
    for (const [ns, last] of [
      [gate, ["1", "1"]],
      [node, ["11", "b"]],
    ] as const) {
      ns.ip(`addr add 192.0.2.${last[0]}/24 dev u0`);
      ns.ip(`addr add fd02::${last[1]}/64 dev u0 nodad`);
      ns.ip("link set u0 addrgenmode none");
      ns.ip("link set u0 up");
    }
    gate.ip(`addr add 100.64.0.${i + 1}/30 dev t0`);
    gate.ip(`addr add fd64::${i + 1}/64 dev t0 nodad`);
    gate.ip("link set t0 up");
    gate.exec("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
  }
  for (const [i, gate] of [gate1, gate2].entries()) {
    const there = OUTER[1 - i];
    gate.ip(`route add ${there?.v4}/32 via 100.64.0.${2 - i}`);
    gate.ip(`route add ${there?.v6}/128 via fd64::${2 - i}`);
    gate.exec("nft", translation(gates[i] ?? "one-to-one", i));
  }
  for (const node of [node1, node2]) {
    node.ip("route add default via 192.0.2.1");
    node.ip("-6 route add default via fd02::1");
  }
  const all = [node1, node2, nsc, nse];
  const [one, two] = await Promise.all([startNode(node1, environment), startNode(node2, environment)]);
  const clusters: TwoClusters = {
    nsc,
    nse,
    node1,
    node2,
    one,
    two,
    all,
    before: all.map(inventory),
    cut: () =>
      void gate1.exec(
        "nft",
        "add table inet cut; add chain inet cut forward { type filter hook forward priority 0; policy drop; }",
      ),
    mend: () => void gate1.exec("nft", "delete table inet cut"),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
  stack.defer(async () => {
    await Promise.all([clusters.one.kill(), clusters.two.kill()]);
  });
  guard.move();
  return clusters;
}

function translation(gate: Gate, i: number): string {
  const outer = OUTER[i] ?? OUTER[0];
  const rules = (family: "ip" | "ip6", own: string, outside: string) => {
    const before = gate === "masquerade" ? "" : `${family} daddr ${outside} dnat to ${own};`;
    const after = gate === "masquerade" ? "masquerade fully-random" : `snat to ${outside}`;
    return `table ${family} gate {
      chain before { type nat hook prerouting priority -100; ${before} }
      chain after { type nat hook postrouting priority 100; oifname "t0" ${family} saddr ${own} ${after}; }
    }`;
  };
  return `${rules("ip", INNER.v4, outer.v4)}\n${rules("ip6", INNER.v6, outer.v6)}`;
}
