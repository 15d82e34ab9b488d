/** Keys of WireGuard: X25519, 32 bytes each (RFC 7748). */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import type { KeyObject } from "node:crypto";

/** PKCS #8 of an X25519 private key up to its 32 bytes (RFC 8410). */
const PKCS8_X25519 = Buffer.from("302e020100300506032b656e04220420", "hex");

/** Both 32 bytes. */
export function newKeys(): { privateKey: Uint8Array; publicKey: Uint8Array } {
  const { privateKey, publicKey } = generateKeyPairSync("x25519");
  return { privateKey: rawKey(privateKey), publicKey: rawKey(publicKey) };
}

export function publicKeyOf(privateKey: Uint8Array): Uint8Array {
  const der = Buffer.concat([PKCS8_X25519, privateKey]);
  const key = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  return rawKey(key);
}

/** The last 32 bytes of either DER form. */
function rawKey(key: KeyObject): Uint8Array {
  const der =
    key.type === "private"
      ? key.export({ format: "der", type: "pkcs8" })
      : key.export({ format: "der", type: "spki" });
  return Uint8Array.from(der.subarray(-32));
}
