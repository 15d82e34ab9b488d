/** Links that were removed here while the other side could not be told: it is told when it can be (docs/links.md, "The end"). */
import { createBackoff } from "../../sdk/backoff.ts";
import { delay } from "../../sdk/clock.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { ask } from "./ask.ts";
import type { Hub } from "./hub.ts";
import { endWasTold, endedOf } from "./state.ts";
import type { EndedRecord } from "./state.ts";

/** From the first try to those of a side that stays away. */
const FIRST_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;
const TRY_MS = 10_000;

export interface FarewellOptions {
  readonly hub: Hub;
  /** Proves to the other side who removes the link. */
  readonly source: X509Source;
  readonly stop: AbortSignal;
}

export interface Farewells extends AsyncDisposable {
  /** Tells those who have not been told, again and again for as long as it is remembered. */
  begin(): void;
}

export function createFarewells({ hub, source, stop }: FarewellOptions): Farewells {
  const { store, clock, log } = hub;
  const running = new Map<string, Promise<void>>();

  const tell = async (ended: EndedRecord, url: string) => {
    const { certificates } = parseBundle(ended.bundle);
    const { svid } = source.current();
    const question = {
      url,
      path: "/leave",
      body: { linkId: ended.id },
      own: { key: svid.privateKeyPem, cert: svid.chainPem },
      nowMs: clock.now(),
      signal: AbortSignal.any([stop, AbortSignal.timeout(TRY_MS)]),
    };
    await ask(question, { proxyId: ended.proxyId, certificates });
  };
  const keepTelling = async ({ id, domain }: EndedRecord) => {
    const backoff = createBackoff({ firstMs: FIRST_MS, maxMs: LONGEST_PAUSE_MS });
    for (let turn = 0; !stop.aborted; turn++) {
      await delay(backoff.next(), stop).catch(() => undefined);
      const ended = endedOf(store.current(), clock.now()).find((each) => each.id === id);
      const url = ended?.addresses[turn % ended.addresses.length];
      if (stop.aborted || ended === undefined || url === undefined) return;
      try {
        await tell(ended, url);
        await store.update((state) => endWasTold(state, id));
        log.info({ domain }, "the other side knows now that its link was removed");
        return;
      } catch (err) {
        log.debug({ domain, url, err }, "the other side has not heard yet that its link was removed");
      }
    }
  };

  return {
    begin() {
      for (const ended of endedOf(store.current(), clock.now())) {
        if (ended.isTold || running.has(ended.id)) continue;
        const work = keepTelling(ended)
          .catch((err: unknown) => log.error({ domain: ended.domain, err }, "farewell failed"))
          .finally(() => running.delete(ended.id));
        running.set(ended.id, work);
      }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(running.values());
    },
  };
}
