/** The devices of wires, made by hand with the usual tools: what a wire is compared with. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { delay } from "../../sdk/clock.ts";
import { createNamespace, joinNamespaces } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import type { Link } from "./iperf.ts";

export type Kind = "veth" | "vxlan" | "wireguard";

/** Two nodes of bare devices, joined as those of a mesh are. */
export interface BareNodes extends AsyncDisposable {
  readonly nodes: readonly [Namespace, Namespace];
  readonly kernelWireguard: boolean;
}

interface End {
  readonly node: Namespace;
  readonly pod: Namespace;
  readonly device: string;
  /** On the underlay. */
  readonly ip: string;
}

const PREFIX = "198.51.100";
const SOCKETS = "/var/run/wireguard";

export async function makeBareNodes(kernelWireguard: boolean): Promise<BareNodes> {
  const nodes = [createNamespace("bare1"), createNamespace("bare2")] as const;
  await joinNamespaces(...nodes, PREFIX);
  return {
    nodes,
    kernelWireguard,
    async [Symbol.asyncDispose]() {
      for (const node of nodes) await node[Symbol.asyncDispose]();
    },
  };
}

/** A pair of pods joined by one device each. `number` tells the devices of a run apart. */
export async function makeBare(
  stack: AsyncDisposableStack,
  { nodes, kernelWireguard }: BareNodes,
  kind: Kind,
  number: number,
  mtu: number,
): Promise<Link> {
  const pods = [createNamespace(`bare${number}a`), createNamespace(`bare${number}b`)] as const;
  for (const pod of pods) stack.use(pod);
  const device = `bare${number}`;
  const [a, b] = ([0, 1] as const).map((i) => ({
    node: nodes[i],
    pod: pods[i],
    device,
    ip: `${PREFIX}.${i + 1}`,
  }));
  if (a === undefined || b === undefined) throw new Error("a device has two ends");
  if (kind === "veth")
    ip(`link add ${device} netns ${a.pod.name} type veth peer name ${device} netns ${b.pod.name}`);
  if (kind === "vxlan")
    for (const [near, far] of [
      [a, b],
      [b, a],
    ] as const)
      makeVxlan(near, far, number);
  if (kind === "wireguard") await makeWireguard(stack, a, b, number, kernelWireguard);
  for (const [i, { pod }] of [a, b].entries()) {
    pod.ip(`link set ${device} mtu ${mtu}`);
    pod.ip(`addr add 10.77.${number}.${i + 1}/30 dev ${device}`);
    pod.ip(`link set ${device} up`);
  }
  return { from: a.pod, to: b.pod, address: `10.77.${number}.2` };
}

function makeVxlan(near: End, far: End, number: number): void {
  const tunnel = `vxlan id ${number} dstport 4789 local ${near.ip} remote ${far.ip} nolearning`;
  near.node.ip(`link add ${near.device} netns ${near.pod.name} type ${tunnel}`);
}

async function makeWireguard(
  stack: AsyncDisposableStack,
  a: End,
  b: End,
  number: number,
  inKernel: boolean,
): Promise<void> {
  const port = 41_000 + number;
  const keys = [a, b].map(() => execFileSync("wg", ["genkey"], { encoding: "utf8" }));
  const folder = stack.adopt(mkdtempSync(join(tmpdir(), "bare-")), (path) =>
    rmSync(path, { recursive: true }),
  );
  for (const [i, end] of [a, b].entries()) {
    // Sockets of the program are named after its device, and all ends share one directory.
    const device = `bare${number}${i}`;
    if (inKernel) end.node.ip(`link add ${device} type wireguard`);
    else await startProgram(stack, end.node, device);
    const far = i === 0 ? b : a;
    const farKey = execFileSync("wg", ["pubkey"], { input: keys[1 - i] ?? "", encoding: "utf8" }).trim();
    const peer = ["peer", farKey, "allowed-ips", "0.0.0.0/0", "endpoint", `${far.ip}:${port}`];
    const keyFile = join(folder, device);
    writeFileSync(keyFile, keys[i] ?? "", { mode: 0o600 });
    const own = ["set", device, "listen-port", String(port), "private-key", keyFile];
    end.node.exec("wg", ...own, ...peer);
    end.node.ip(`link set ${device} netns ${end.pod.name}`);
    end.pod.ip(`link set ${device} name ${end.device}`);
  }
}

async function startProgram(stack: AsyncDisposableStack, node: Namespace, device: string): Promise<void> {
  const child = spawn("nsenter", [`--net=/run/netns/${node.name}`, "wireguard-go", device], {
    stdio: "ignore",
    detached: true, // as the forwarder does: a session is what the kernel's scheduler shares the processors by
    env: { PATH: process.env["PATH"], WG_PROCESS_FOREGROUND: "1" },
  });
  const ended = once(child, "exit");
  stack.defer(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  for (const end = performance.now() + 5000; !existsSync(`${SOCKETS}/${device}.sock`);) {
    if (performance.now() > end) throw new Error("wireguard-go did not start");
    await delay(20);
  }
}

function ip(command: string): void {
  execFileSync("ip", command.split(" "));
}
