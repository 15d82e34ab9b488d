/** Where endpoints with a domain in their names are, as this proxy has passed it on: it publishes itself in their place. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { splitDomain } from "../sdk/domains/name.ts";
import { LruMap } from "../sdk/lru.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Registry } from "../sdk/registry/registry.ts";

/** Endpoints of each kind; the least used is forgotten, and known again by the next Find or renewal. */
const MOST_KNOWN = 65_536;
const MOST_DOMAINS = 1024;
const SEVERAL = "";

/** An endpoint of this domain that is registered elsewhere (`service@floating`). */
export interface RegisteredElsewhere {
  /** Of its manager. */
  readonly url: string;
  readonly services: readonly string[];
}

export interface RemoteEndpoints {
  registered(name: string): RegisteredElsewhere | undefined;
  /** The proxy of the domain of an endpoint, asked for when it is not known any more. Undefined for one that is not there. */
  find(name: string, signal: AbortSignal): Promise<string | undefined>;
  /** True for a domain whose endpoints are not all behind one proxy: they are registered there, and elsewhere. */
  isSpread(domain: string): boolean;
}

export interface RememberedEndpoints {
  readonly registry: Registry<NetworkServiceEndpoint>;
  readonly remote: RemoteEndpoints;
}

/**
 * Finds and registrations that go through this proxy. `ownUrl`: under which it is reached, here (in what is found) and from
 * elsewhere (in what is registered there).
 */
export function rememberEndpoints(
  elsewhere: Registry<NetworkServiceEndpoint>,
  ownUrl: { readonly here: string; readonly elsewhere: () => string },
): RememberedEndpoints {
  const found = new LruMap<string, string>(MOST_KNOWN);
  const registered = new LruMap<string, RegisteredElsewhere>(MOST_KNOWN);
  /** The proxy of a domain's endpoints, by domain; more than one are `SEVERAL`. */
  const proxies = new LruMap<string, string>(MOST_DOMAINS);
  /** Who asks another domain for an endpoint of its own, under that domain's name, is sent back to itself. */
  const isOwn = (url: string) => url === ownUrl.here || url === ownUrl.elsewhere();
  const note = ({ name, url }: NetworkServiceEndpoint, deleted: boolean) => {
    const { domain } = splitDomain(name);
    if (!deleted) proxies.set(domain, [undefined, url].includes(proxies.get(domain)) ? url : SEVERAL);
    if (deleted || isOwn(url)) found.delete(name);
    else found.set(name, url);
  };
  return {
    remote: {
      isSpread: (domain) => proxies.get(domain) === SEVERAL,
      registered: (name) => registered.get(name),
      async find(name, signal) {
        if (found.get(name) === undefined) {
          const query = create(NetworkServiceEndpointSchema, { name });
          for (const entry of await findAll(elsewhere, query, signal)) note(entry, false);
        }
        return found.get(name);
      },
    },
    registry: {
      async register(endpoint, ctx) {
        const { name, url, networkServiceNames: services } = endpoint;
        endpoint.url = ownUrl.elsewhere();
        const answer = await elsewhere.register(endpoint, ctx);
        registered.set(name, { url, services });
        answer.url = url;
        return answer;
      },
      async *find(query, ctx) {
        for await (const { entry, deleted } of elsewhere.find(query, ctx)) {
          note(entry, deleted);
          yield { entry: { ...entry, url: ownUrl.here }, deleted };
        }
      },
      async unregister(endpoint, ctx) {
        await elsewhere.unregister({ ...endpoint, url: ownUrl.elsewhere() }, ctx);
        registered.delete(endpoint.name);
      },
    },
  };
}
