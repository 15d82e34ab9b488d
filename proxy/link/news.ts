/** What linked domains tell one another as long as they are linked: own bundle, and what the other may use. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TellRequest, TellRequestSchema } from "../../api/gen/link_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import type { Hub, Offers, Way } from "./hub.ts";
import { changeLink } from "./state.ts";
import type { LinkRecord } from "./state.ts";
import type { Trust } from "./trust.ts";

const MAX_BUNDLE_BYTES = 256 * 1024;
const MOST_OFFERED = 10_000;
/** SPIFFE standard "Federation", §5: where a bundle has no hint. */
const DEFAULT_HINT_S = 300;
const LEAST_REPEAT_S = 1;

export type News = MessageInitShape<typeof TellRequestSchema>;

export interface NewsOptions {
  readonly hub: Hub;
  readonly trust: Trust;
  readonly offers: Offers;
  /** Where this side can be dialled. */
  readonly addresses: () => readonly string[];
  /** Where the other side says that it can be. */
  readonly hearAddresses: (link: LinkRecord, urls: readonly string[]) => Promise<void>;
  readonly tell: (link: LinkRecord, way: Way, news: News) => Promise<void>;
  readonly stop: AbortSignal;
}

export interface NewsDesk extends Disposable {
  /** What a link's other side should know now. */
  newsFor(link: LinkRecord): News;
  /** Throws what the authority refuses: an older sequence, or no bundle. */
  hear(link: LinkRecord, news: TellRequest): Promise<void>;
}

/** Tells at once what has changed, and all of it again each refresh hint. */
export function createNewsDesk({
  hub,
  trust,
  offers,
  addresses,
  hearAddresses,
  tell,
  stop,
}: NewsOptions): NewsDesk {
  const { store, clock, log } = hub;
  const stack = new DisposableStack();
  let timer: Disposable | undefined;

  const newsFor = ({ domain }: LinkRecord): News => ({
    bundle: Buffer.from(trust.own()),
    offered: { services: offers.to(domain).slice(0, MOST_OFFERED) },
    addresses: { urls: [...addresses()] },
  });
  const announce = (link: LinkRecord) => {
    const { way } = hub.live(link.id);
    if (way === undefined || link.state === "leaving") return;
    tell(link, way, newsFor(link)).catch((err: unknown) =>
      log.debug({ domain: link.domain, err }, "news were not heard by the other side"),
    );
  };
  const announceAll = () => {
    for (const link of hub.links()) announce(link);
  };
  const repeat = () => {
    const hint = parseBundle(trust.own()).refreshHintSeconds ?? DEFAULT_HINT_S;
    timer = clock.timer(Math.max(hint, LEAST_REPEAT_S) * 1000, () => {
      announceAll();
      repeat();
    });
  };
  repeat();
  stack.defer(() => timer?.[Symbol.dispose]());
  stack.use(trust.onOwnChange(announceAll));
  stack.use(offers.onChange(announceAll));
  stack.use(hub.listen({ up: announce, gone: () => Promise.resolve() }));

  const hearBundle = async (link: LinkRecord, bytes: Uint8Array) => {
    if (bytes.length > MAX_BUNDLE_BYTES)
      throw new NsmError(
        "INVALID_ARGUMENT",
        "bundle-too-large",
        `a bundle of more than ${MAX_BUNDLE_BYTES} bytes`,
      );
    const document = Buffer.from(bytes).toString("utf8");
    if (link.bundle !== document) {
      if (parseBundle(document).certificates.length === 0)
        throw new NsmError(
          "INVALID_ARGUMENT",
          "bad-bundle",
          `the bundle of ${link.domain} holds no certificate authority`,
        );
      if (link.gaveBundle) await trust.set(link.trustDomain, document, stop);
      await store.update((state) => changeLink(state, link.id, (each) => ({ ...each, bundle: document })));
      log.info({ domain: link.domain }, "new bundle of a linked domain");
    }
    hub.live(link.id).bundleHeardMs = clock.now();
  };

  return {
    newsFor,
    async hear(link, { bundle, offered, addresses: told }) {
      if (told !== undefined) await hearAddresses(link, told.urls);
      if (offered !== undefined) hub.live(link.id).offeredToUs = offered.services.slice(0, MOST_OFFERED);
      if (bundle.length === 0) return;
      try {
        await hearBundle(link, bundle);
      } catch (err) {
        log.warn({ domain: link.domain, err }, "bundle of a linked domain is refused, the last one stays");
        throw err;
      }
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
