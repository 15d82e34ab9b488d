/** The configuration protocol of WireGuard programs: lines of `key=value` over a unix socket (wireguard.com/xplatform). */
import { createConnection } from "node:net";
import { NsmError, errnoOf } from "../../../sdk/errors.ts";
import { formatAddress, parseIp } from "../../../sdk/prefix.ts";
import { publicKeyOf } from "../keys.ts";
import type { WireguardShape } from "../../plan/plan.ts";
import type { PeerPlace, WireguardState } from "./driver.ts";
import { KEEPALIVE_SECONDS } from "./messages.ts";

const ANSWER_MS = 2000;
/** A device with one peer takes a few hundred bytes. */
const LARGEST_ANSWER = 64 * 1024;

export const GET = "get=1\n\n";

/** Holds the private key: goes to the socket, never into an argument or a log. */
export function formatDevice({ privateKey, localPort, ...peer }: WireguardShape): string {
  const device = [`private_key=${hex(privateKey)}`, `listen_port=${localPort}`];
  return formatSet([...device, ...newPeer(peer)]);
}

/** The peer alone, without its session. */
export function formatNewPeer(peer: PeerPlace): string {
  return formatSet(newPeer(peer));
}

/** Where the peer is, and a keepalive to there at once: it is sent when keepalives begin. Its session stays. */
export function formatPlace({ remotePublicKey, remoteIp, remotePort }: PeerPlace): string {
  return formatSet([
    ...existing(remotePublicKey),
    endpointOf(remoteIp, remotePort),
    ...beat(remotePublicKey),
  ]);
}

function newPeer({ remotePublicKey, remoteIp, remotePort }: PeerPlace): readonly string[] {
  return [
    "replace_peers=true",
    `public_key=${hex(remotePublicKey)}`,
    endpointOf(remoteIp, remotePort),
    `persistent_keepalive_interval=${KEEPALIVE_SECONDS}`,
    "replace_allowed_ips=true",
    "allowed_ip=0.0.0.0/0",
    "allowed_ip=::/0",
  ];
}

function existing(remotePublicKey: Uint8Array): readonly string[] {
  return [`public_key=${hex(remotePublicKey)}`, "update_only=true"];
}

function beat(remotePublicKey: Uint8Array): readonly string[] {
  return [
    "persistent_keepalive_interval=0",
    ...existing(remotePublicKey),
    `persistent_keepalive_interval=${KEEPALIVE_SECONDS}`,
  ];
}

function endpointOf(ip: string, port: number): string {
  return `endpoint=${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
}

function formatSet(lines: readonly string[]): string {
  return `${["set=1", ...lines].join("\n")}\n\n`;
}

/** Undefined for a device without a key. */
export function parseState(answer: string): WireguardState | undefined {
  const values = new Map<string, string>();
  for (const line of answer.split("\n")) {
    const [, key, value] = /^([a-z_]+)=(.*)$/.exec(line) ?? [];
    // Our devices have one peer.
    if (key !== undefined && value !== undefined && !values.has(key)) values.set(key, value);
  }
  const number = (key: string) => Number(values.get(key) ?? "0");
  const privateKey = values.get("private_key") ?? "";
  if (privateKey === "") return undefined;
  const remotePublicKey = values.get("public_key");
  const [, v6, v4, remotePort] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(values.get("endpoint") ?? "") ?? [];
  const ip = parseIp(v6 ?? v4 ?? "");
  const handshakeMs = number("last_handshake_time_sec") * 1000 + number("last_handshake_time_nsec") / 1e6;
  return {
    privateKey: bytesOf(privateKey),
    publicKey: publicKeyOf(bytesOf(privateKey)),
    port: number("listen_port"),
    remotePublicKey: remotePublicKey === undefined ? undefined : bytesOf(remotePublicKey),
    remoteIp: ip && formatAddress(ip),
    remotePort: remotePort === undefined ? undefined : Number(remotePort),
    lastHandshakeMs: handshakeMs === 0 ? undefined : handshakeMs,
    rxBytes: number("rx_bytes"),
  };
}

/** Asks the program behind a socket. Throws UNAVAILABLE: `wireguard-go-gone` when nobody is there, `wireguard-go-failed` when it is silent or refuses (by its errno). */
export async function askProgram(path: string, words: string): Promise<string> {
  const failed = (why: string, reason = "wireguard-go-failed") =>
    new NsmError("UNAVAILABLE", reason, `WireGuard program at ${path}: ${why}`);
  return await new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    let answer = "";
    const end = (error?: NsmError) => {
      socket.destroy();
      if (error === undefined) resolve(answer);
      else reject(error);
    };
    socket.setEncoding("latin1");
    socket.setTimeout(ANSWER_MS, () => end(failed(`no answer within ${ANSWER_MS} ms`)));
    socket.on("error", (error) => {
      const isGone = ["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "");
      end(failed(error.message, isGone ? "wireguard-go-gone" : undefined));
    });
    socket.on("close", () => end(failed("it closed the connection")));
    socket.on("data", (text: string) => {
      answer += text;
      const errno = /(?:^|\n)errno=(-?\d+)\n\n$/.exec(answer)?.[1];
      if (errno === "0") end();
      else if (errno !== undefined) end(failed(`it refused, with errno ${errno}`));
      else if (answer.length > LARGEST_ANSWER) end(failed("its answer has no end"));
    });
    socket.write(words);
  });
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString("hex");
}

function bytesOf(key: string): Uint8Array {
  return Uint8Array.from(Buffer.from(key, "hex"));
}
