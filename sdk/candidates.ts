/** Which endpoints a Request may go to, as far as the registry says (docs/protocol.md, "Matching"). */
import type { Connection } from "../api/gen/connection_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "./clock.ts";
import { NsmError } from "./errors.ts";
import { checkNamed, discover } from "./match.ts";
import type { DiscoverInput, Discovery } from "./match.ts";
import type { RegistryView } from "./registry/view.ts";

export interface CandidateOptions {
  readonly view: Pick<RegistryView, "service" | "endpointsOf" | "endpoint">;
  readonly clock: Pick<Clock, "now">;
  /** True while the kernel still holds a wire of an earlier life of this process: its endpoint was chosen by the rules once. */
  readonly holdsWire: (id: string) => boolean;
}

/**
 * `isChosen`: another forwarder of the mesh has made the choice and names the endpoint; nobody else's word counts. Throws NOT_FOUND
 * `service-not-found`, `endpoint-not-found`, `endpoint-mismatch`, `no-candidates`.
 */
export async function candidatesOf(
  options: CandidateOptions,
  connection: Connection,
  isChosen: boolean,
  signal: AbortSignal,
): Promise<Discovery> {
  const { view, clock } = options;
  const { networkServiceEndpointName: name, networkService } = connection;
  const nowMs = clock.now();
  if (name !== "" && isChosen) {
    const endpoint = await view.endpoint(name, networkService, signal);
    return discover({ connection, services: [], endpoints: endpoint === undefined ? [] : [endpoint], nowMs });
  }
  const [service, endpoints, named] = await Promise.all([
    view.service(networkService, signal),
    view.endpointsOf(networkService, signal),
    name === "" ? undefined : view.endpoint(name, networkService, signal),
  ]);
  const services = service === undefined ? [] : [service];
  if (named === undefined) return discover({ connection, services, endpoints, nowMs });
  // The watch of the service may be a moment behind what was asked by name.
  const all = endpoints.some((each) => each.name === name) ? endpoints : [...endpoints, named];
  checkUnlessHeld({ connection, services, endpoints: all, nowMs }, named, options);
  return { kind: "named", endpoint: named };
}

/** A wire that there is stays when its service leads nowhere any more: an edit cuts nobody off who cannot go elsewhere. */
function checkUnlessHeld(
  input: DiscoverInput,
  named: NetworkServiceEndpoint,
  { holdsWire }: CandidateOptions,
): void {
  try {
    checkNamed(input, named);
  } catch (error) {
    const leadsNowhere = error instanceof NsmError && error.reason !== "endpoint-mismatch";
    if (!leadsNowhere || !holdsWire(input.connection.id)) throw error;
  }
}
