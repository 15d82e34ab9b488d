/** From a message of the Workload API to a snapshot (SPIFFE standard "Workload API", §6; "X509-SVID", §4). */
import { createPrivateKey } from "node:crypto";
import type { KeyObject, X509Certificate } from "node:crypto";
import type { X509SVID, X509SVIDResponse } from "../../api/gen/workload_pb.js";
import { NsmError, messageOf } from "../errors.ts";
import { readCertificates } from "./certificate.ts";
import { parseTrustDomainId, parseWorkloadId } from "./id.ts";
import type { X509Snapshot, X509Svid } from "./source.ts";
import { verifySvid } from "./verify.ts";
import type { Bundles } from "./verify.ts";

/**
 * The snapshot of a whole message: the first SVID is the process's identity, the others must be sound too. Returns `previous`
 * itself when nothing differs, and keeps its SVID object and its bundles object while they are the same (sessions live as long as
 * the one, verified chains are remembered with the other). Throws INVALID_ARGUMENT `bad-workload-message`.
 */
export function readX509Response(
  message: X509SVIDResponse,
  previous: X509Snapshot | undefined,
  nowMs: number,
): X509Snapshot {
  try {
    const identities = message.svids.map(readIdentity);
    const [first] = identities;
    if (first === undefined) throw bad("it holds no SVID");
    const federated = Object.entries(message.federatedBundles).map(
      ([id, der]) => [parseTrustDomainId(id), readCertificates(der)] as const,
    );
    const own = identities.map(({ trustDomain, bundle }) => [trustDomain, bundle] as const);
    // An own trust domain's bundle is never taken from another domain's entry: own entries come last.
    const bundles = keepIfEqual(new Map([...federated, ...own]), previous?.bundles);
    for (const { svid } of identities) checkSvid(svid, bundles, nowMs);
    const svid = previous?.svid.chainPem === first.svid.chainPem ? previous.svid : first.svid;
    if (previous?.svid === svid && previous.bundles === bundles) return previous;
    return { generation: (previous?.generation ?? 0) + 1, svid, bundles };
  } catch (error) {
    throw bad(messageOf(error), error);
  }
}

interface Identity {
  readonly trustDomain: string;
  readonly svid: X509Svid;
  readonly bundle: readonly X509Certificate[];
}

function readIdentity(message: X509SVID): Identity {
  const { text: id, trustDomain } = parseWorkloadId(message.spiffeId);
  const chain = readCertificates(message.x509Svid);
  const [leaf] = chain;
  if (leaf === undefined) throw bad(`${id} has no certificate`);
  const privateKey = readKey(message.x509SvidKey, id);
  if (!leaf.checkPrivateKey(privateKey)) throw bad(`the key of ${id} does not fit its certificate`);
  const bundle = readCertificates(message.bundle);
  if (bundle.length === 0) throw bad(`the bundle of ${id} is empty`);
  const svid: X509Svid = {
    id,
    chain,
    chainPem: chain.map((certificate) => certificate.toString()).join(""),
    privateKey,
    privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    notAfterMs: leaf.validToDate.getTime(),
  };
  return { trustDomain, svid, bundle };
}

function readKey(der: Uint8Array, id: string): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(der), format: "der", type: "pkcs8" });
  } catch {
    // Without its cause, which might show bytes of the key.
    throw bad(`the key of ${id} is not PKCS #8`);
  }
}

/** What others would refuse is of no use to us either; better said now than at every handshake. */
function checkSvid({ id, chain }: X509Svid, bundles: Bundles, nowMs: number): void {
  const verified = verifySvid(
    chain.map(({ raw }) => raw),
    bundles,
    nowMs,
  );
  if (verified.id !== id) throw bad(`the certificate of ${id} names ${verified.id}`);
}

function keepIfEqual(bundles: Bundles, previous: Bundles | undefined): Bundles {
  return previous !== undefined && fingerprint(bundles) === fingerprint(previous) ? previous : bundles;
}

function fingerprint(bundles: Bundles): string {
  return [...bundles]
    .map(([name, cas]) => [name, ...cas.map(({ fingerprint256 }) => fingerprint256)].join())
    .sort()
    .join("\n");
}

function bad(fault: string, cause?: unknown): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-workload-message", fault, cause);
}
