/** Settings of the own network namespace that forwarding needs (ip-sysctl.rst, ip-rule(8)). */
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import type { KernelError } from "../../sdk/netlink/message.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";
import type { Family } from "../../sdk/prefix.ts";
import { RTPROT_KERNEL, RT_TABLE_LOCAL } from "../../sdk/netlink/route.ts";
import { decodeRule, deleteRule, dumpRules, newRule } from "../../sdk/netlink/rule.ts";
import type { FoundRule, Rule } from "../../sdk/netlink/rule.ts";
import { LOCAL_PRIORITY } from "./joint-plan.ts";

const IPV4 = "/proc/sys/net/ipv4/conf";
const IPV6 = "/proc/sys/net/ipv6/conf";

/** A kernel without IPv6 has neither the rules nor the need. */
export const families: readonly Family[] = existsSync(IPV6) ? [4, 6] : [4];

export interface Sysctls {
  /** Lets packets that come in by this device go on. */
  forward(device: string): void;
  /** No IPv6 of its own on a device that is part of a bridge. */
  noAddresses(device: string): void;
}

export function openSysctls(): Sysctls {
  return {
    forward(device) {
      // A packet may come from an address that this namespace has as well: it is somebody else's there.
      write(`${IPV4}/${device}/accept_local`, "1");
      write(`${IPV4}/${device}/forwarding`, "1");
      if (!existsSync(IPV6)) return;
      write(`${IPV6}/${device}/disable_ipv6`, "0");
      // Since Linux 6.17 a device alone can forward; before, the namespace as a whole does.
      const own = `${IPV6}/${device}/force_forwarding`;
      if (existsSync(own)) write(own, "1");
      else forwardEverywhere();
    },
    noAddresses(device) {
      if (existsSync(IPV6)) write(`${IPV6}/${device}/disable_ipv6`, "1");
    },
  };
}

/** The switch for all changes each device, too; those that listened to routers go on doing so. */
function forwardEverywhere(): void {
  const all = `${IPV6}/all/forwarding`;
  if (read(all) === "1") return;
  const others = readdirSync(IPV6).filter((name) => name !== "all");
  const before = others.map(
    (name) => [`${IPV6}/${name}/forwarding`, read(`${IPV6}/${name}/forwarding`)] as const,
  );
  write(all, "1");
  for (const [file, value] of before) if (value !== undefined && read(file) !== value) write(file, value);
}

/** Local addresses are looked at after our own rules; the former place is given up last. */
export async function localRuleLast(socket: NetlinkSocket): Promise<void> {
  await moveLocalRule(socket, LOCAL_PRIORITY, 0);
}

export async function localRuleFirst(socket: NetlinkSocket): Promise<void> {
  await moveLocalRule(socket, 0, LOCAL_PRIORITY);
}

async function moveLocalRule(socket: NetlinkSocket, to: number, from: number): Promise<void> {
  for (const family of families) {
    const rule = (priority: number): Rule => ({
      family,
      priority,
      table: RT_TABLE_LOCAL,
      protocol: RTPROT_KERNEL,
    });
    const [added, removed] = await socket.batch([newRule(rule(to)), deleteRule(rule(from))]);
    throwUnless(added, "EEXIST");
    throwUnless(removed, "ENOENT", "ESRCH");
  }
}

export async function readRules(socket: NetlinkSocket): Promise<readonly FoundRule[]> {
  const rules = [];
  for (const family of families) rules.push(...(await socket.dump(dumpRules(family))).map(decodeRule));
  return rules.filter((rule) => rule !== undefined);
}

/** Throws a refusal by the kernel that has none of these codes. */
export function throwUnless(refusal: KernelError | undefined, ...codes: readonly string[]): void {
  if (refusal !== undefined && !codes.includes(refusal.code)) throw refusal;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined; // the device is gone
    throw error;
  }
}

function write(file: string, value: string): void {
  const now = read(file);
  if (now === undefined || now === value) return;
  try {
    writeFileSync(file, value);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "sysctl-read-only",
      `cannot write ${file}: a pass-through endpoint forwards packets and needs /proc/sys/net of its namespace writable`,
      error,
    );
  }
}
