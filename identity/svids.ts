/** One current X509-SVID for each identity, shared by its callers and renewed at about half of its life, or earlier. */
import type { Clock } from "../sdk/clock.ts";
import type { Authority } from "./authority.ts";
import type { IssuedSvid } from "./issuer.ts";

/** Renewals of identities that started together drift apart by up to this share of the time until then. */
const JITTER = 0.1;

export interface CurrentSvid extends IssuedSvid {
  /** When there will be a newer one, milliseconds since 1970. */
  readonly renewAtMs: number;
}

export interface Svids {
  /** The current SVID of `id`, issued now if there is none, it is time to renew it, or its issuer is none any more. */
  of(id: string): Promise<CurrentSvid>;
  /** Forgets all identities but these. */
  keepOnly(ids: ReadonlySet<string>): void;
}

export interface SvidTimes {
  readonly svidLifetimeMs: number;
  /** When a certificate is renewed, from its issue on; half of its life at the latest, and unless told. */
  readonly svidRenewalMs: number | undefined;
}

export function createSvids(
  authority: Pick<Authority, "issueX509" | "isIssuer">,
  { svidLifetimeMs: lifetimeMs, svidRenewalMs }: SvidTimes,
  clock: Clock,
  random = Math.random,
): Svids {
  const current = new Map<string, Promise<CurrentSvid>>();
  const issue = async (id: string): Promise<CurrentSvid> => {
    const nowMs = clock.now();
    const svid = await authority.issueX509(id, lifetimeMs);
    const halfMs = Math.min(lifetimeMs, svid.notAfterMs - nowMs) / 2;
    const afterMs = Math.min(svidRenewalMs ?? halfMs, halfMs);
    return { ...svid, renewAtMs: nowMs + afterMs * (1 + JITTER * (2 * random() - 1)) };
  };
  return {
    async of(id) {
      const known = current.get(id);
      const svid = await known;
      if (svid !== undefined && clock.now() < svid.renewAtMs && authority.isIssuer(svid.issuer)) return svid;
      // Others may have begun to renew it during the wait above.
      const begun = current.get(id);
      if (begun !== undefined && begun !== known) return begun;
      const next = issue(id);
      current.set(id, next);
      next.catch(() => current.delete(id));
      return next;
    },
    keepOnly(ids) {
      for (const id of current.keys()) if (!ids.has(id)) current.delete(id);
    },
  };
}
