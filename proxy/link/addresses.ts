/** Where the other side of a link is, which may change while the link stands (docs/links.md, "Addresses"). */
import { NsmError, codeOf, messageOf } from "../../sdk/errors.ts";
import type { Hub } from "./hub.ts";
import { changeLink } from "./state.ts";
import type { LinkRecord } from "./state.ts";
import { isTcpAddress } from "./token.ts";

const MOST_ADDRESSES = 8;

export interface AddressBookOptions {
  readonly hub: Hub;
  /** Which of the addresses that another domain names may be dialled. */
  readonly dialable: (urls: readonly string[]) => readonly string[];
  /** False when the linked proxy answers there and does not know the link. Throws when it does not answer. */
  readonly isKnownThere: (link: LinkRecord, url: string, signal: AbortSignal) => Promise<boolean>;
}

export interface AddressBook {
  /** What the other side says of itself; the address at which it answers now stays, whatever it says. */
  hear(link: LinkRecord, urls: readonly string[]): Promise<void>;
  /**
   * What an operator says of the other side, which has to answer there. Throws INVALID_ARGUMENT `bad-address`, NOT_FOUND `not-linked`,
   * and why the proxy of that link does not answer there.
   */
  set(domain: string, urls: readonly string[], signal: AbortSignal): Promise<void>;
}

export function createAddressBook({ hub, dialable, isKnownThere }: AddressBookOptions): AddressBook {
  const write = async ({ id, domain }: LinkRecord, addresses: readonly string[]) => {
    await hub.store.update((state) => changeLink(state, id, (link) => ({ ...link, addresses })));
    hub.log.info({ domain, addresses }, "addresses of a linked domain");
  };
  return {
    async hear(link, urls) {
      const given = urls.filter(isTcpAddress).slice(0, MOST_ADDRESSES);
      // Names are known by operators' word alone, and may be said again.
      const told = given.filter((url) => link.addresses.includes(url) || dialable([url]).length > 0);
      const { way } = hub.live(link.id);
      const works = way?.kind === "direct" && link.addresses.includes(way.url) ? [way.url] : [];
      if (told.length === 0 && link.dials) return;
      const addresses = [...new Set([...told, ...works])].slice(0, MOST_ADDRESSES);
      if (addresses.join() !== link.addresses.join()) await write(link, addresses);
    },
    async set(domain, urls, signal) {
      const link = hub.byDomain(domain);
      if (link?.state !== "linked")
        throw new NsmError(
          "NOT_FOUND",
          "not-linked",
          `${hub.own.domain} has no link with ${domain}: nsm link list shows those that there are`,
        );
      const wrong = urls.find((url) => !isTcpAddress(url));
      if (wrong !== undefined || urls.length === 0 || urls.length > MOST_ADDRESSES)
        throw new NsmError(
          "INVALID_ARGUMENT",
          "bad-address",
          `${wrong ?? `${urls.length} addresses`}: expected one to ${MOST_ADDRESSES} of tcp://host:port`,
        );
      for (const url of urls) await checkThere(link, url, signal);
      await write(link, [...new Set(urls)]);
    },
  };

  async function checkThere(link: LinkRecord, url: string, signal: AbortSignal): Promise<void> {
    let isKnown = false;
    try {
      isKnown = await isKnownThere(link, url, signal);
    } catch (error) {
      throw new NsmError(
        codeOf(error),
        "not-there",
        `${link.proxyId} does not answer at ${url}, and nothing is changed: ${messageOf(error)}`,
        error,
      );
    }
    if (isKnown) return;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "not-linked-there",
      `the proxy of ${link.domain} answers at ${url}, and knows this link no more: nsm link remove ${link.domain}`,
    );
  }
}
