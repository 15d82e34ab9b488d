/** The endpoint's end of a wire: a kernel device in its own network namespace (docs/protocol.md, "Mechanisms"). */
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { Element } from "../sdk/chain.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";

export interface KernelMechanismOptions {
  readonly netnsUrl: string;
  readonly interfaceName: (networkService: string) => string;
  /** Wishes that it does not hold for are not heeded; by default all are. */
  readonly isOwnName?: (name: string) => boolean;
  /** Further parameters of our end. */
  readonly parameters?: Readonly<Record<string, string>>;
}

/**
 * Chooses KERNEL among the offers. Throws FAILED_PRECONDITION `no-common-mechanism`.
 * State: the device's name per connection, kept over refreshes; dropped on close.
 */
export function kernelMechanism(options: KernelMechanismOptions): Element {
  const names = new Map<string, string>();
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const known = names.get(connection.id);
      const mechanism = choose(connection.mechanism, request.mechanismPreferences);
      mechanism.parameters["inodeURL"] = options.netnsUrl;
      const wish = mechanism.parameters["name"] ?? "";
      const isHeeded = wish !== "" && (options.isOwnName?.(wish) ?? true);
      mechanism.parameters["name"] =
        known ?? (isHeeded ? wish : options.interfaceName(connection.networkService));
      Object.assign(mechanism.parameters, options.parameters);
      connection.mechanism = mechanism;
      const response = await next.request(request, ctx);
      names.set(connection.id, mechanism.parameters["name"]);
      return response;
    },
    async close(connection, ctx) {
      names.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}

function choose(present: Mechanism | undefined, offers: readonly Mechanism[]): Mechanism {
  const usable = (present === undefined ? offers : [present]).find(({ type }) => type === "KERNEL");
  if (usable !== undefined) return usable;
  const offered = [present, ...offers].flatMap((mechanism) =>
    mechanism === undefined ? [] : [mechanism.type],
  );
  throw new NsmError(
    "FAILED_PRECONDITION",
    "no-common-mechanism",
    `offered mechanisms: ${offered.join(", ") || "none"}; this endpoint does KERNEL`,
  );
}
