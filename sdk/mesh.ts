/** What every daemon needs to take part: its identity, tokens, and sessions to others. */
import { parseSpiffeId } from "./spiffe/id.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import type { Runtime } from "./daemon.ts";
import { createSessionPool } from "./grpc/sessions.ts";
import type { SessionPool } from "./grpc/sessions.ts";
import { meters } from "./metrics/meters.ts";
import type { X509Source } from "./spiffe/source.ts";
import { verifySvid } from "./spiffe/verify.ts";
import { openX509Source } from "./spiffe/workload-api.ts";
import { createTokenMinter } from "./token.ts";
import type { TokenMinter } from "./token.ts";

export interface MeshConfig {
  readonly spiffeSocket: string;
  readonly maxTokenLifetimeMs: number;
  /** Longest wait for a session. */
  readonly dialTimeoutMs?: number;
  /** How long the first identity may take; see `WorkloadApiOptions`. */
  readonly identityWait?: { readonly waitMs: number; readonly silentMs: number };
}

export interface Mesh extends AsyncDisposable {
  readonly clock: Clock;
  readonly source: X509Source;
  readonly verify: typeof verifySvid;
  readonly pool: SessionPool;
  readonly minter: TokenMinter;
  /** Own SPIFFE id, and its trust domain, as of the start. */
  readonly spiffeId: string;
  readonly trustDomain: string;
}

/** Throws as `openX509Source`: without an identity no daemon starts. */
export async function openMesh(
  config: MeshConfig,
  { log, signal, clock = systemClock }: Pick<Runtime, "log" | "signal"> & { readonly clock?: Clock },
): Promise<Mesh> {
  const verify = verifySvid;
  const { spiffeSocket: socket, identityWait } = config;
  const source = await openX509Source({ socket, log, signal, clock, ...identityWait });
  const limits = config.dialTimeoutMs === undefined ? {} : { connectMs: config.dialTimeoutMs };
  const pool = createSessionPool({ source, verify, log, clock, limits });
  const { id } = source.current().svid;
  const expiry = trackExpiry(source);
  log.info({ spiffeId: id }, "identity received");
  return {
    clock,
    source,
    verify,
    pool,
    minter: createTokenMinter({ clock, maxLifetimeMs: config.maxTokenLifetimeMs }),
    spiffeId: id,
    trustDomain: parseSpiffeId(id).trustDomain,
    async [Symbol.asyncDispose]() {
      expiry[Symbol.dispose]();
      await pool[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
    },
  };
}

/** Of the newest certificate, also after its end. */
function trackExpiry(source: X509Source): Disposable {
  let { notAfterMs } = source.current().svid;
  const stack = new DisposableStack();
  stack.use(source.onChange(({ svid }) => (notAfterMs = svid.notAfterMs)));
  stack.use(meters.certificateExpiry.track(() => [{ labels: {}, value: notAfterMs / 1000 }]));
  return stack;
}
