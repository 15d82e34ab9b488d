/** Names in pods: servers that know some, and programs that look one up as any does, by the C library. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { answerTo, askedOf } from "./dns.ts";
import type { NamedNamespace } from "./netns.ts";
import { bindUdp } from "./udp.ts";

/** An IPv4 address; undefined when there is no such name, null for a question that gets no answer. */
export type NameTable = (name: string) => string | undefined | null;

/** Answers at port 53 of an address of a namespace. */
export function startNameServer(ns: NamedNamespace, address: string, table: NameTable): Disposable {
  const socket = bindUdp(ns, address, 53);
  socket.on("message", (query, from) => {
    const { name, type } = askedOf(query);
    const found = table(name);
    if (found === null) return;
    const says = found === undefined ? "nxDomain" : type === "A" ? { addresses: [found] } : "noData";
    socket.send(answerTo(query, says), from.port, from.address);
  });
  return { [Symbol.dispose]: () => void socket.close() };
}

/** The IPv4 address that a program of a namespace finds whose /etc/resolv.conf is `file`, or `none`. */
export async function lookUp(ns: NamedNamespace, file: string, name: string): Promise<string> {
  const script = 'mount --bind "$1" /etc/resolv.conf && exec getent ahostsv4 "$2"';
  const command = ["unshare", "--mount", "sh", "-c", script, "sh", file, name];
  const inside = [`--net=/run/netns/${ns.name}`, ...command];
  const output = await promisify(execFile)("nsenter", inside).catch(() => ({ stdout: "none" }));
  return output.stdout.split(/\s/)[0] ?? "";
}
