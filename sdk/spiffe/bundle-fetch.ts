/**
 * One question to a SPIFFE bundle endpoint (SPIFFE standard "Federation", §5): GET over HTTPS, no certificate of ours.
 *
 * The other side may be anybody until its certificate is verified, and careless or hostile afterwards: the answer is bounded in
 * size and time, and redirects lead nowhere where the URL itself may not.
 */
import { lookup } from "node:dns/promises";
import { BlockList, isIP } from "node:net";
import { NsmError, asNsmError, messageOf } from "../errors.ts";
import type { Verify } from "../grpc/tls.ts";
import { askOverHttps } from "../https-question.ts";
import { MAX_BUNDLE_BYTES } from "./bundle.ts";
import type { Bundles } from "./verify.ts";

const DEADLINE_MS = 10_000;
const MAX_REDIRECTS = 3;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** How the server of an endpoint proves who it is. */
export type EndpointProfile =
  | { readonly kind: "https_web" }
  /** Host names are not looked at. */
  | { readonly kind: "https_spiffe"; readonly endpointId: string };

export interface EndpointOptions {
  /** `https://host[:port]/path` */
  readonly url: string;
  readonly profile: EndpointProfile;
  /** For https_spiffe: what verifies the endpoint, of its own trust domain. */
  readonly bundles: () => Bundles;
  readonly verify: Verify;
  /** Redirects may lead to addresses of private networks and of this machine. Default: they may not. */
  readonly redirectsToPrivate?: boolean;
  /** For https_web: PEM, instead of the system's. */
  readonly webRoots?: string;
  readonly signal: AbortSignal;
}

/** `text` when it may be asked: https, no user, a host. Throws INVALID_ARGUMENT `bad-endpoint-url`. */
export function parseEndpointUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" && url.username === "" && url.password === "" && url.hostname !== "")
    return url;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "bad-endpoint-url",
    `bundle endpoint ${JSON.stringify(text.slice(0, 200))}: expected https://host[:port]/path without a user`,
  );
}

/**
 * The document that the endpoint answers with. Throws UNAVAILABLE `bundle-endpoint` (nobody there, too slow, another status than
 * 200, more than 1 MiB, a redirect that is not allowed), UNAUTHENTICATED with the verifier's reason, or `wrong-endpoint-id`.
 */
export async function fetchBundle(options: EndpointOptions): Promise<Buffer> {
  const late = AbortSignal.timeout(DEADLINE_MS);
  const signal = AbortSignal.any([options.signal, late]);
  try {
    let url = parseEndpointUrl(options.url);
    for (let redirects = 0; ; redirects++) {
      const answer = await ask(url, { ...options, signal }, redirects > 0);
      if (Buffer.isBuffer(answer)) return answer;
      if (redirects === MAX_REDIRECTS) throw fault(`more than ${MAX_REDIRECTS} redirects`);
      url = parseEndpointUrl(new URL(answer.location, url).href);
    }
  } catch (error) {
    const why = late.aborted ? fault(`no answer within ${DEADLINE_MS / 1000} s`) : error;
    const known = asNsmError(why, "UNAVAILABLE", "bundle-endpoint", "bundle endpoint");
    throw new NsmError(known.code, known.reason, `${options.url}: ${messageOf(known)}`, known);
  }
}

type Answer = Buffer | { readonly location: string };

async function ask(url: URL, options: EndpointOptions, isRedirect: boolean): Promise<Answer> {
  const { profile, signal, webRoots } = options;
  const name = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const address = isIP(name) === 0 ? (await lookup(name)).address : name;
  if (isRedirect && options.redirectsToPrivate !== true && isPrivate(address))
    throw fault(`the redirect to ${url.href} leads to ${address}, which is no public address`);
  const { status, headers, body } = await askOverHttps({
    host: address,
    port: Number(url.port || 443),
    path: url.pathname + url.search,
    headers: { host: url.host, accept: "application/json", "accept-encoding": "identity" },
    // The chain of a SPIFFE endpoint is verified by the bundle of its trust domain alone.
    ...(profile.kind === "https_web" && { web: { name, roots: webRoots } }),
    check: (chain) => {
      if (profile.kind === "https_spiffe") checkEndpoint(chain, profile.endpointId, options);
    },
    maxBytes: MAX_BUNDLE_BYTES,
    signal,
  });
  if (REDIRECTS.has(status) && headers.location !== undefined) return { location: headers.location };
  if (status !== 200) throw fault(`it answers with status ${status}, not 200`);
  return body;
}

function checkEndpoint(
  chain: readonly Uint8Array[],
  endpointId: string,
  { verify, bundles }: EndpointOptions,
): void {
  const { id } = verified(() => verify(chain, bundles(), Date.now()));
  if (id === endpointId) return;
  throw new NsmError(
    "UNAUTHENTICATED",
    "wrong-endpoint-id",
    `bundle endpoint is ${id}, expected ${endpointId}`,
  );
}

function verified<T>(verify: () => T): T {
  try {
    return verify();
  } catch (error) {
    throw asNsmError(error, "UNAUTHENTICATED", "bundle-endpoint", "certificate");
  }
}

/** RFC 6890: what is not for the Internet. */
const NOT_PUBLIC = new BlockList();
for (const [network, prefix] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["224.0.0.0", 3],
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, "ipv4");
for (const [network, prefix] of [
  ["::", 127],
  ["64:ff9b::", 96],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, "ipv6");

/** An IPv4 address written as IPv6 (::ffff:10.0.0.1) is looked at as what it is. */
function isPrivate(address: string): boolean {
  return NOT_PUBLIC.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

function fault(text: string): NsmError {
  return new NsmError("UNAVAILABLE", "bundle-endpoint", text);
}
