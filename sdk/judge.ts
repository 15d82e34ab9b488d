/** Whether a wire is where the matches of its service want it now (docs/protocol.md, "Wires that move"). Pure. */
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { matchForwarders } from "./match-forwarders.ts";
import { isSubset, matchEndpoints } from "./match.ts";
import type { Labels } from "./selector-template.ts";

export interface JudgedWire {
  /** Labels of the client. */
  readonly labels: Labels;
  /** Name of the endpoint that serves it. */
  readonly endpoint: string;
  /** Name of the forwarder that serves it. */
  readonly forwarder: string;
}

export interface JudgeInput {
  /** As the registry has it; undefined when it has none of that name. */
  readonly service: NetworkService | undefined;
  /** Those of the service that live. */
  readonly endpoints: readonly NetworkServiceEndpoint[];
  /** Those of this node that live, and the service under which they register. */
  readonly forwarders: readonly NetworkServiceEndpoint[];
  readonly forwarderService: string;
}

export type WhyNot = "service-not-found" | "no-candidates" | "endpoint-mismatch" | "forwarder-mismatch";

export type Judgement =
  | { readonly kind: "fits" }
  /** Its endpoint is not registered: whether that is dead is for others to say. */
  | { readonly kind: "unknown" }
  /** It would not be made like this any more. `elsewhere`: somebody else would serve it. */
  | { readonly kind: "misfit"; readonly why: WhyNot; readonly elsewhere: boolean }
  /** It would be made like this only while those that are preferred do not serve; `by` is one of them. */
  | { readonly kind: "outranked"; readonly by: string };

export function judge(wire: JudgedWire, input: JudgeInput): Judgement {
  const { service, endpoints } = input;
  if (service === undefined) return { kind: "misfit", why: "service-not-found", elsewhere: false };
  const current = endpoints.find(({ name }) => name === wire.endpoint);
  if (current !== undefined && fitsAtOnce(wire, input, service, current)) return { kind: "fits" };
  const candidates = matchEndpoints(service, wire.labels, endpoints);
  const forwarders = matchForwarders(service, wire.labels, input.forwarders, input.forwarderService);
  const elsewhere = candidates.length > 0 && forwarders.length > 0;
  if (current === undefined) return { kind: "unknown" };
  // Alone: a later match that is fallen through to is no misfit because an earlier one has found somebody meanwhile.
  if (matchEndpoints(service, wire.labels, [current]).length === 0)
    return { kind: "misfit", why: candidates.length > 0 ? "endpoint-mismatch" : "no-candidates", elsewhere };
  if (isForwarderMisfit(wire, input, service))
    return { kind: "misfit", why: "forwarder-mismatch", elsewhere };
  const own = candidates.find(({ endpoint }) => endpoint.name === wire.endpoint)?.preference;
  // A domain that does not answer may have wires that work: whether its endpoint is dead is for others to say.
  if (own?.isAway === true) return { kind: "fits" };
  const better = candidates.find(
    ({ preference }) => !preference.isAway && preference.tier < (own?.tier ?? Infinity),
  );
  return better === undefined ? { kind: "fits" } : { kind: "outranked", by: better.endpoint.name };
}

/** Most wires: nobody can be preferred, so the other endpoints, of which there may be thousands, are not looked at. */
function fitsAtOnce(
  wire: JudgedWire,
  input: JudgeInput,
  service: NetworkService,
  current: NetworkServiceEndpoint,
): boolean {
  const own = matchEndpoints(service, wire.labels, [current]).find(({ preference }) => preference.tier === 0);
  if (own === undefined) return false;
  const first = service.matches.findIndex(({ sourceSelector }) => isSubset(sourceSelector, wire.labels));
  return (own.match ?? first) === first && !isForwarderMisfit(wire, input, service);
}

function isForwarderMisfit(
  { labels, forwarder }: JudgedWire,
  { forwarders, forwarderService }: JudgeInput,
  service: NetworkService,
): boolean {
  const current = forwarders.filter(({ name }) => name === forwarder);
  return current.length > 0 && matchForwarders(service, labels, current, forwarderService).length === 0;
}
