/** The side that joined dials the other one, and keeps the stream for as long as there is a link; the other side asks while it is away. */
import { create } from "@bufbuild/protobuf";
import { KeepRequestSchema, Link } from "../../api/gen/link_pb.js";
import type { LinkMessage } from "../../api/gen/link_pb.js";
import { createBackoff } from "../../sdk/backoff.ts";
import { delay } from "../../sdk/clock.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { streamUntilReplaced } from "../../sdk/grpc/until-replaced.ts";
import type { Hub, Way } from "./hub.ts";
import { patientTimer } from "../../sdk/reach.ts";
import { GRACE_MS, PING_MS, SILENT_MS } from "./keeping.ts";
import type { LinkRecord } from "./state.ts";

/** With the wait for a session below a second: so soon after a cut the link is there again. */
const LONGEST_PAUSE_MS = 250;
/** How often a side that refuses is asked whether it knows the link at all. */
const ASK_AFTER_MS = 2000;
const ASK_WHILE_AWAY_MS = 5000;

export interface DiallingOptions {
  readonly hub: Hub;
  /** Tells the other side that its ping has come; resolves when it has heard it. */
  readonly pong: (link: LinkRecord, way: Way, number: bigint) => Promise<void>;
  readonly openTunnel: (link: LinkRecord, url: string, ticket: string, signal: AbortSignal) => void;
  /** False when the other side says that there is no such link, in a way that nobody else can. Throws when it says nothing. */
  readonly isKnownThere: (link: LinkRecord, url: string, signal: AbortSignal) => Promise<boolean>;
  /** Says to the other side what it should know of this one, by its own address. Throws when it does not hear it. */
  readonly introduce: (link: LinkRecord, url: string) => Promise<void>;
  /** The other side has ended the link. */
  readonly onUnlinked: (link: LinkRecord) => void;
}

/** Dials until `signal` aborts. */
export async function keepDialling(
  link: LinkRecord,
  options: DiallingOptions,
  signal: AbortSignal,
): Promise<void> {
  const { hub } = options;
  const backoff = createBackoff({ firstMs: 50, maxMs: LONGEST_PAUSE_MS });
  let askedMs = hub.clock.monotonic();
  let heardMs = -Infinity;
  const heard = () => (heardMs = hub.clock.monotonic());
  for (let turn = 0; !signal.aborted; turn++) {
    const url = addressOf(link, hub, turn) ?? "";
    try {
      if (await follow(link, url, options, heard, signal)) {
        backoff.reset();
        turn--; // to the one that answered
      }
    } catch (err) {
      if (signal.aborted) return;
      // A certificate that is renewed, or a moment without time, costs a session and not the link.
      if (hub.clock.monotonic() - heardMs > GRACE_MS) {
        hub.wentDown(link, messageOf(err));
        hub.pool.end(url);
      }
      hub.log.debug({ domain: link.domain, err }, "the other side is not reached");
      if (hub.clock.monotonic() - askedMs > ASK_AFTER_MS) {
        askedMs = hub.clock.monotonic();
        if (await isOver(link, url, options, signal)) return;
      }
    }
    await delay(backoff.next(), signal).catch(() => undefined);
  }
}

/**
 * The same question from the side that does not dial, while the other one stays away: it may have removed the link when nobody could
 * hear it, or dial an address that is no more, and is told the new one. Asks until `signal` aborts, or the answer is that it is over.
 */
export async function keepAsking(
  link: LinkRecord,
  options: Pick<DiallingOptions, "hub" | "isKnownThere" | "introduce" | "onUnlinked">,
  signal: AbortSignal,
): Promise<void> {
  const { hub } = options;
  for (let turn = 0; !signal.aborted; turn++) {
    await delay(ASK_WHILE_AWAY_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    const url = addressOf(link, hub, turn);
    if (url === undefined || hub.live(link.id).way !== undefined) continue;
    if (await isOver(link, url, options, signal)) return;
    await options
      .introduce(link, url)
      .catch((err: unknown) => hub.log.debug({ domain: link.domain, err }, "the other side did not hear"));
  }
}

/** Of those that are known now, one after the other. */
function addressOf({ id }: LinkRecord, hub: Hub, turn: number): string | undefined {
  const addresses = hub.links().find((link) => link.id === id)?.addresses ?? [];
  return addresses[turn % addresses.length];
}

/** True when the other side has pinged before the stream ended. Throws what ended it. */
async function follow(
  link: LinkRecord,
  url: string,
  options: DiallingOptions,
  onHeard: () => void,
  stop: AbortSignal,
): Promise<boolean> {
  const { hub } = options;
  const { pool, clock } = hub;
  const silence = new AbortController();
  let watchdog: Disposable | undefined;
  const heard = () => {
    watchdog?.[Symbol.dispose]();
    const fallSilent = () =>
      silence.abort(
        new NsmError("UNAVAILABLE", "domain-silent", `${url}: nothing heard for ${SILENT_MS / 1000} s`),
      );
    watchdog = patientTimer(clock, SILENT_MS, fallSilent, PING_MS);
  };
  const signal = AbortSignal.any([stop, silence.signal]);
  const target = { url, expect: (id: string) => id === link.proxyId };
  const request = create(KeepRequestSchema, { linkId: link.id });
  let pings = 0;
  heard();
  try {
    for await (const message of streamUntilReplaced(pool, target, Link.method.keep, request, { signal })) {
      heard();
      onHeard();
      if (message.ping !== undefined) pings++;
      take(message, link, { kind: "direct", url }, pings === 1, options, stop);
    }
    return pings > 0;
  } finally {
    watchdog?.[Symbol.dispose]();
  }
}

function take(
  { ping, openTunnel, unlinked, observedAddress }: LinkMessage,
  link: LinkRecord,
  way: Way,
  isFirst: boolean,
  options: DiallingOptions,
  signal: AbortSignal,
): void {
  const { hub } = options;
  if (observedAddress !== "") hub.live(link.id).observedAddress = observedAddress;
  if (unlinked) options.onUnlinked(link);
  if (openTunnel !== undefined) options.openTunnel(link, way.url, openTunnel.ticket, signal);
  if (ping === undefined) return;
  hub.wentUp(link, way, isFirst);
  const sinceMs = hub.clock.monotonic();
  options.pong(link, way, ping.number).then(
    () => (hub.live(link.id).rttMs = hub.clock.monotonic() - sinceMs),
    (err: unknown) => hub.log.debug({ domain: link.domain, err }, "an answer to a ping was not heard"),
  );
}

async function isOver(
  link: LinkRecord,
  url: string,
  { hub, isKnownThere, onUnlinked }: Pick<DiallingOptions, "hub" | "isKnownThere" | "onUnlinked">,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    if (await isKnownThere(link, url, signal)) return false;
  } catch {
    return false; // whoever does not answer has not said that it is over
  }
  hub.log.info({ domain: link.domain }, "the other side does not know this link any more");
  onUnlinked(link);
  return true;
}
