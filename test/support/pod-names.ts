/** Names in pods: servers that know some, and programs that look one up as any does, by the C library. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { answerTo, askedOf } from "./dns.ts";
import type { Says } from "./dns.ts";
import type { NamedNamespace } from "./netns.ts";
import { bindUdp } from "./udp.ts";

/** An IPv4 address, and the port of a service there; undefined when there is no such name, null for a question that gets no answer. */
export type NameTable = (
  name: string,
) => string | { readonly address: string; readonly port: number } | undefined | null;

/** Answers at port 53 of an address of a namespace. */
export function startNameServer(ns: NamedNamespace, address: string, table: NameTable): Disposable {
  const socket = bindUdp(ns, address, 53);
  socket.on("message", (query, from) => {
    const { name, type } = askedOf(query);
    const found = table(name);
    if (found === null) return;
    socket.send(answerTo(query, saysOf(found, type)), from.port, from.address);
  });
  return { [Symbol.dispose]: () => void socket.close() };
}

function saysOf(found: Exclude<ReturnType<NameTable>, null>, type: string): Says {
  if (found === undefined) return "nxDomain";
  const { address, port } = typeof found === "string" ? { address: found, port: undefined } : found;
  if (type === "A") return { addresses: [address] };
  return type === "SRV" && port !== undefined ? { port } : "noData";
}

/** Words before a command that runs it with `file` as its /etc/resolv.conf. */
export function withResolvConf(file: string): readonly string[] {
  const script = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, "sh", file];
}

/** The IPv4 address that a program of a namespace finds whose /etc/resolv.conf is `file`, or `none`. */
export async function lookUp(ns: NamedNamespace, file: string, name: string): Promise<string> {
  const inside = [`--net=/run/netns/${ns.name}`, ...withResolvConf(file), "getent", "ahostsv4", name];
  const output = await promisify(execFile)("nsenter", inside).catch(() => ({ stdout: "none" }));
  return output.stdout.split(/\s/)[0] ?? "";
}
