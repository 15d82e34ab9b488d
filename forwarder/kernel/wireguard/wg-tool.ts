/** The texts of the program wg (wg(8)): what it reads as configuration, what `wg show <interface> dump` writes. */
import type { WireguardShape } from "../../plan/plan.ts";
import type { WireguardState } from "./driver.ts";
import { KEEPALIVE_SECONDS } from "./messages.ts";

/** Holds the private key: goes to standard input, never into an argument or a log. */
export function formatConfiguration(shape: WireguardShape): string {
  const { privateKey, localPort, remotePublicKey, remoteIp, remotePort } = shape;
  return `[Interface]
PrivateKey = ${base64(privateKey)}
ListenPort = ${localPort}
[Peer]
PublicKey = ${base64(remotePublicKey)}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = ${remoteIp.includes(":") ? `[${remoteIp}]` : remoteIp}:${remotePort}
PersistentKeepalive = ${KEEPALIVE_SECONDS}
`;
}

/** Undefined for a device without a key. First line: private key, public key, port, mark; then a peer a line. */
export function parseDump(text: string): WireguardState | undefined {
  const [device = [], peer = []] = text.split("\n").map((line) => line.split("\t"));
  const [privateKey = "", publicKey = "", port = ""] = device;
  if (privateKey === "" || privateKey === "(none)") return undefined;
  const [remotePublicKey = "", , endpoint = "", , handshake = "0"] = peer;
  const [, v6, v4, remotePort] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(endpoint) ?? [];
  return {
    privateKey: bytesOf(privateKey),
    publicKey: bytesOf(publicKey),
    port: Number(port),
    remotePublicKey: remotePublicKey === "" ? undefined : bytesOf(remotePublicKey),
    remoteIp: v6 ?? v4,
    remotePort: remotePort === undefined ? undefined : Number(remotePort),
    lastHandshakeMs: handshake === "0" ? undefined : Number(handshake) * 1000,
  };
}

function base64(key: Uint8Array): string {
  return Buffer.from(key).toString("base64");
}

function bytesOf(key: string): Uint8Array {
  return Uint8Array.from(Buffer.from(key, "base64"));
}
