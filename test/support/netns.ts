/** Network namespaces for tests: made under unique names, held by a process, removed with everything in them. */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, statSync } from "node:fs";
import { insideNetns } from "../../sdk/native.ts";

/** False without root; netns tests then skip and say so (CI runs as root, so nothing skips there). */
export const isRoot = process.getuid?.() === 0;

/** A network namespace with a name, seen from outside. */
export interface NamedNamespace {
  /** As below /run/netns. */
  readonly name: string;
  readonly inode: bigint;
  /** Runs `ip <arguments>` inside; the words are split at blanks. */
  ip(command: string): string;
  /** Runs any program inside and returns its standard output. */
  exec(program: string, ...args: string[]): string;
  /** Synchronous code with this process's thread inside, to open sockets there. */
  inside<T>(body: () => T): T;
}

/** Its name is `nsmt-<pid>-<n>-<label>`. */
export interface Namespace extends NamedNamespace, AsyncDisposable {
  /** A process that lives in it. */
  readonly pid: number;
  /** Ends the process and removes the name: the kernel then takes the namespace down. */
  kill(): Promise<void>;
}

let count = 0;

/** Loopback is up, nothing else is there. */
export function createNamespace(label: string): Namespace {
  const name = `nsmt-${process.pid}-${++count}-${label}`;
  execFileSync("ip", ["netns", "add", name]);
  const named = namespaceNamed(name);
  const path = `/run/netns/${name}`;
  const holder = spawn("nsenter", [`--net=${path}`, "sleep", "infinity"], { stdio: "ignore" });
  named.ip("link set lo up");
  waitForEntry(holder, path);
  let alive = true;
  const kill = async () => {
    if (!alive) return;
    alive = false;
    const ended = holder.exitCode ?? holder.signalCode ?? once(holder, "exit");
    holder.kill("SIGKILL");
    await ended;
    execFileSync("ip", ["netns", "del", name]);
  };
  return {
    ...named,
    pid: holder.pid ?? 0,
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

/** One that somebody else made and will remove. */
export function namespaceNamed(name: string): NamedNamespace {
  const path = `/run/netns/${name}`;
  const exec = (program: string, ...args: string[]) =>
    execFileSync("nsenter", [`--net=${path}`, program, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
  return {
    name,
    inode: inodeOf(path),
    exec,
    ip: (command) => exec("ip", ...command.split(" ")),
    inside(body) {
      const fd = openSync(path, "r");
      try {
        return insideNetns(fd, body);
      } finally {
        closeSync(fd);
      }
    },
  };
}

/** Joins two namespaces by a veth pair, as an underlay between nodes. `prefix` 10.9.0 gives 10.9.0.1 and 10.9.0.2, and fd09::1 and ::2. */
export async function joinNamespaces(
  a: Namespace,
  b: Namespace,
  prefix = "10.9.0",
  mtu = 1500,
): Promise<void> {
  execFileSync("ip", [
    ..."link add u0 mtu".split(" "),
    String(mtu),
    ...`netns ${a.name} type veth peer name u0 mtu ${mtu} netns ${b.name}`.split(" "),
  ]);
  for (const [i, ns] of [a, b].entries()) {
    ns.ip(`addr add ${prefix}.${i + 1}/24 dev u0`);
    ns.ip(`addr add fd09::${i + 1}/64 dev u0 nodad`);
    ns.ip("link set u0 addrgenmode none");
    ns.ip("link set u0 up");
  }
  // The kernel settles carrier and multicast routes a little later, which an inventory would see.
  for (const ns of [a, b])
    await eventually(
      "the underlay is up",
      () =>
        ns.ip("link show u0").includes("state UP") && ns.ip("-6 route show table all").includes("multicast"),
    );
}

/** What a namespace holds, one line each, without counters: for leak checks. */
export function inventory(ns: Namespace): string[] {
  const lines = (command: string) =>
    ns
      .ip(command)
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "");
  return [
    ...lines("-o link"),
    ...lines("-o addr"),
    ...lines("route show table all"),
    ...lines("-6 route show table all"),
    ...lines("rule"),
    ...lines("neigh show nud permanent"),
    ...ns.exec("nft", "list", "ruleset").split("\n"),
  ].map((line) => line.replace(/ (expires|pref) \S+/g, ""));
}

/** Waits until `condition` holds; fails with `what` after `timeoutMs`. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<void> {
  for (const end = performance.now() + timeoutMs; ;) {
    if (await condition()) return;
    if (performance.now() > end) throw new Error(`did not happen within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

/** The holder is a copy of this process until nsenter has switched. */
function waitForEntry(holder: ChildProcess, path: string): void {
  const wanted = inodeOf(path);
  for (const end = performance.now() + 5000; performance.now() < end;) {
    if (inodeOf(`/proc/${holder.pid}/ns/net`) === wanted) return;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
  throw new Error(`no process entered ${path}`);
}
