/** Somebody who has stolen the key of a CA from an authority's state: what it signs is as good as the authority's own. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { z } from "zod";
import { X509SVIDResponseSchema } from "../../api/gen/workload_pb.js";
import { createX509Issuer } from "../../identity/issuer.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";
import { readX509Response } from "../../sdk/spiffe/x509-message.ts";

const State = z.object({
  keys: z.array(z.object({ ca: z.object({ certificate: z.string(), key: z.string() }) })),
});

/** An identity of an hour that no authority gave and none can renew, signed by the newest CA in that directory. */
export async function forgeIdentity(
  stateDir: string,
  spiffeId: string,
): Promise<X509Source & { readonly ca: string }> {
  const { keys } = State.parse(JSON.parse(readFileSync(join(stateDir, "authority.json"), "utf8")));
  const newest = keys.at(-1)?.ca;
  if (newest === undefined) throw new Error("there is no CA to steal");
  const issuer = await createX509Issuer(newest);
  const all = keys.map(({ ca }) => new X509Certificate(ca.certificate).raw);
  const { certificate, privateKey } = await issuer.issue(spiffeId, Date.now(), 3_600_000);
  const svids = [{ spiffeId, x509Svid: certificate, x509SvidKey: privateKey, bundle: Buffer.concat(all) }];
  const snapshot = readX509Response(create(X509SVIDResponseSchema, { svids }), undefined, Date.now());
  return {
    ca: issuer.id,
    current: () => snapshot,
    onChange: () => ({ [Symbol.dispose]: () => undefined }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
