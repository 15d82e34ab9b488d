/** Trust domains that the federation file names: their endpoints are asked as long as it names them, and no longer trusted afterwards. */
import type { Clock } from "../sdk/clock.ts";
import { NsmError, asNsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { oneAtATime } from "../sdk/one-at-a-time.ts";
import { startPolling } from "../sdk/spiffe/bundle-endpoint.ts";
import type { EndpointProfile } from "../sdk/spiffe/bundle-fetch.ts";
import { parseWorkloadId } from "../sdk/spiffe/id.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import type { Bundles } from "../sdk/spiffe/verify.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import type { Federated } from "./federated.ts";
import { parseRelationships } from "./relationships.ts";
import type { Relationship } from "./relationships.ts";
import { readSafeFile } from "./safe-file.ts";
import type { Trust } from "./trust.ts";

export interface FederationFileOptions {
  /** Undefined: no trust domain is named by configuration. */
  readonly path: string | undefined;
  readonly trustDomain: string;
  readonly federated: Federated;
  readonly trust: Trust;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Throws as `openWatchedFile` for a file that is missing or wrong now; later on the last good one stays in force. */
export async function openFederationFile(options: FederationFileOptions): Promise<AsyncDisposable> {
  const { path, trustDomain, federated, log, clock } = options;
  await using stack = new AsyncDisposableStack();
  /** By trust domain. */
  const running = new Map<string, { readonly text: string; readonly poller: AsyncDisposable }>();
  const stop = async (name: string) => {
    const poller = running.get(name)?.poller;
    running.delete(name);
    await poller?.[Symbol.asyncDispose]();
  };
  stack.defer(async () => {
    await Promise.all([...running.keys()].map(stop));
  });
  const inTurn = oneAtATime();
  const apply = (wanted: readonly Relationship[]) =>
    inTurn(async () => {
      const names = new Set(wanted.map((each) => each.trustDomain));
      for (const name of new Set([...running.keys(), ...federated.namedBy("configuration")])) {
        if (names.has(name)) continue;
        await stop(name);
        await federated.remove(name, "configuration");
      }
      for (const each of wanted) {
        const text = JSON.stringify(each);
        if (running.get(each.trustDomain)?.text === text) continue;
        await stop(each.trustDomain);
        await takeInitial(each, options);
        running.set(each.trustDomain, { text, poller: poll(each, options) });
      }
    });
  if (path === undefined) {
    await apply([]);
    return stack.move();
  }
  const file = stack.use(
    await openWatchedFile({
      path,
      variable: "NSM_IDENTITY_FEDERATION",
      what: "federation",
      read: (name) => readSafeFile(name, "federation"),
      parse: (text) => parseRelationships(text, trustDomain),
      log,
      clock,
    }),
  );
  await apply(file.current());
  stack.use(
    file.onChange(() => {
      apply(file.current()).catch((err: unknown) => log.error({ err, path }, "federation not changed"));
    }),
  );
  return stack.move();
}

/** One that is older than what is known is of no interest. */
async function takeInitial(relationship: Relationship, { federated }: FederationFileOptions): Promise<void> {
  const path = relationship.profile === "https_spiffe" ? relationship.initialBundle : undefined;
  if (path === undefined) return;
  try {
    await federated.set(relationship.trustDomain, await readSafeFile(path, "bundle"), "configuration");
  } catch (error) {
    if (error instanceof NsmError && error.reason === "sequence-backwards") return;
    throw asNsmError(error, "FAILED_PRECONDITION", "no-initial-bundle", `initial bundle ${path}`);
  }
}

function poll(relationship: Relationship, options: FederationFileOptions): AsyncDisposable {
  const { trustDomain, url, redirectsToPrivate = false, leastRefreshSeconds } = relationship;
  const { federated, log, clock } = options;
  return startPolling({
    trustDomain,
    url,
    profile: profileOf(relationship),
    redirectsToPrivate,
    leastHintMs: leastRefreshSeconds === undefined ? undefined : leastRefreshSeconds * 1000,
    refreshHintSeconds: federated.current().get(trustDomain)?.refreshHintSeconds,
    verify: verifySvid,
    bundles: () => bundlesFor(relationship, options),
    take: (document) => federated.set(trustDomain, document, "configuration"),
    log,
    clock,
  });
}

function profileOf(relationship: Relationship): EndpointProfile {
  return relationship.profile === "https_web"
    ? { kind: "https_web" }
    : { kind: "https_spiffe", endpointId: relationship.endpointId };
}

/** What verifies the endpoint: the newest bundle of the trust domain that its id names, and no other. */
function bundlesFor(
  relationship: Relationship,
  { trustDomain, federated, trust }: FederationFileOptions,
): Bundles {
  if (relationship.profile === "https_web") return new Map();
  const { trustDomain: name } = parseWorkloadId(relationship.endpointId);
  const bundle = name === trustDomain ? trust.current().own : federated.current().get(name);
  return new Map(bundle === undefined ? [] : [[name, bundle.certificates]]);
}
