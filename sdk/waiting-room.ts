/**
 * Places for those who have not yet shown what they want: few, and nobody can take them all. When none is free, whoever holds the
 * most of them gives one way to a holder of fewer; among equals, one that has been idle.
 */
import type { Clock } from "./clock.ts";
import { formatAddress, networkOf, parseIp } from "./prefix.ts";

/** Of this age one is dropped for an equal: first one that has not said a word. */
const SILENT_MS = 100;
const SLOW_MS = 500;
/** What one host has of IPv6 at the least (RFC 6177). */
const IPV6_SITE_LENGTH = 64;

export interface Guest {
  /** Whose place it is; guests of one holder are counted together. */
  readonly holder: string;
  /** Has not said a word yet. */
  readonly isSilent: () => boolean;
  /** Keeps its place, since somebody works for it; nobody unless told. */
  readonly isBusy?: () => boolean;
  /** Ends it, when its place is for another one. */
  readonly dismiss: () => void;
}

export interface WaitingRoom {
  /** Undefined: there is no room. Disposing gives the place back. */
  admit(guest: Guest): Disposable | undefined;
}

export function createWaitingRoom(places: number, clock: Clock): WaitingRoom {
  /** In order of coming. */
  const guests = new Map<Guest, number>();

  const counts = () => {
    const counted = new Map<string, number>();
    for (const { holder } of guests.keys()) counted.set(holder, (counted.get(holder) ?? 0) + 1);
    return counted;
  };
  /** Who gives way to a newcomer of that holder. */
  const victimFor = (holder: string): Guest | undefined => {
    const held = counts();
    const mine = held.get(holder) ?? 0;
    const idle = [...guests].filter(([{ isBusy }]) => isBusy?.() !== true);
    const most = Math.max(...idle.map(([guest]) => held.get(guest.holder) ?? 0));
    const ofMost = idle.filter(([guest]) => held.get(guest.holder) === most);
    if (most > mine + 1) return ofMost[0]?.[0];
    const ages = ofMost.map(([guest, sinceMs]) => ({ guest, ageMs: clock.monotonic() - sinceMs }));
    const found =
      ages.find(({ guest, ageMs }) => ageMs > SILENT_MS && guest.isSilent()) ??
      ages.find(({ ageMs }) => ageMs > SLOW_MS);
    return found?.guest;
  };

  return {
    admit(guest) {
      if (guests.size >= places) {
        const victim = victimFor(guest.holder);
        if (victim === undefined) return undefined;
        guests.delete(victim);
        victim.dismiss();
      }
      guests.set(guest, clock.monotonic());
      return { [Symbol.dispose]: () => void guests.delete(guest) };
    },
  };
}

/** The holder that stands behind an address: a host of IPv4, and all that one host may call itself by IPv6. */
export function holderOf(address: string | undefined): string {
  const ip = parseIp(address ?? "");
  if (ip === undefined) return address ?? "";
  return formatAddress(ip.family === 4 ? ip : networkOf({ ...ip, length: IPV6_SITE_LENGTH }));
}
