/** Registries as gRPC handlers: limits, registration path, policies, then the registry itself (docs/protocol.md, "Registration path"). */
import { create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import type { Empty } from "@bufbuild/protobuf/wkt";
import {
  NetworkServiceEndpointResponseSchema,
  NetworkServiceEndpointSchema,
  NetworkServiceResponseSchema,
  NetworkServiceSchema,
} from "../../api/gen/registry_pb.js";
import type {
  NetworkService,
  NetworkServiceEndpoint,
  NetworkServiceEndpointRegistry,
  NetworkServiceRegistry,
} from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import { refuseForeignToken } from "../elements/tokens.ts";
import { NsmError } from "../errors.ts";
import type { Caller } from "../grpc/caller.ts";
import type { Handlers } from "../grpc/handlers.ts";
import type { Peer } from "../grpc/peer.ts";
import { checkEndpointLimits, checkServiceLimits } from "../limits.ts";
import { countCodes } from "../metrics/codes.ts";
import { meters } from "../metrics/meters.ts";
import { authorizeRegistration, spiffeIdOf } from "../policies.ts";
import {
  PATH_KEY,
  enterRegistration,
  leaveRegistration,
  readRegistrationPath,
  writeRegistrationPath,
} from "../registry-path.ts";
import type { RegistrationPath } from "../registry-path.ts";
import { readTokenMetadata, signAgain } from "../token.ts";
import type { TokenMinter } from "../token.ts";
import type { Presence } from "./presence.ts";
import type { Found, Registries, Registry, RegistryContext } from "./registry.ts";

export interface ServeRegistryOptions {
  readonly minter: TokenMinter;
  readonly clock: Clock;
  /** `path_ids` of the record that bears a name; undefined when the name is free for the claimant as far as this process knows. */
  readonly ownersOfService: OwnersOf;
  readonly ownersOfEndpoint: OwnersOf;
  /**
   * Who may pass on the registrations of others. Nothing vouches for the first token of a path but the word of whoever passed
   * it on.
   */
  readonly mayRelay: (spiffeId: string) => boolean;
  /** Told of everybody who watches. */
  readonly presence?: Pick<Presence, "enter">;
}

/** `claimant`: SPIFFE id with which the path begins. */
export type OwnersOf = (name: string, claimant: string) => readonly string[] | undefined;

export function serviceRegistryHandlers(
  { services }: Pick<Registries, "services">,
  options: ServeRegistryOptions,
): Handlers<typeof NetworkServiceRegistry> {
  const gate = createGate(services, options, options.ownersOfService, checkServiceLimits, "service");
  return {
    register: (entry, caller) => gate.register(entry, caller),
    unregister: (entry, caller) => gate.unregister(entry, caller),
    async *find({ networkService = create(NetworkServiceSchema), watch }, caller) {
      for await (const { entry, deleted } of gate.find(networkService, watch, caller))
        yield create(NetworkServiceResponseSchema, { networkService: entry, deleted });
    },
  };
}

export function endpointRegistryHandlers(
  { endpoints }: Pick<Registries, "endpoints">,
  options: ServeRegistryOptions,
): Handlers<typeof NetworkServiceEndpointRegistry> {
  const gate = createGate(endpoints, options, options.ownersOfEndpoint, checkEndpointLimits, "endpoint");
  return {
    register: (entry, caller) => gate.register(entry, caller),
    unregister: (entry, caller) => gate.unregister(entry, caller),
    async *find({ networkServiceEndpoint = create(NetworkServiceEndpointSchema), watch }, caller) {
      for await (const { entry, deleted } of gate.find(networkServiceEndpoint, watch, caller))
        yield create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint: entry, deleted });
    },
  };
}

function counted<T>(method: string, call: () => Promise<T>): Promise<T> {
  return countCodes((code) => meters.registryCalls.inc({ method, code }), call);
}

/** Until it is disposed, a watch counts as open. */
function countFind(kind: string, watch: boolean): Disposable {
  meters.registryFinds.inc({ kind });
  if (watch) meters.registryWatches.add({ kind }, 1);
  return {
    [Symbol.dispose]() {
      if (watch) meters.registryWatches.add({ kind }, -1);
    },
  };
}

type Registered = NetworkService | NetworkServiceEndpoint;

/** The three methods, for records of either kind. `checkLimits` comes first: nothing is kept of what is too large. */
function createGate<T extends Registered>(
  registry: Registry<T>,
  { minter, clock, mayRelay, presence }: ServeRegistryOptions,
  ownersOf: OwnersOf,
  checkLimits: (entry: T) => void,
  kind: "service" | "endpoint",
) {
  const enter = (entry: T, caller: Caller) => {
    const { peer } = caller;
    const callerToken = readTokenMetadata(caller.metadata);
    refuseForeignToken(peer, callerToken);
    const ownToken = minter.mint(peer.own.svid, peer.spiffeId, peer.certificate.validToDate.getTime());
    const hop = enterRegistration({
      path: readRegistrationPath(caller.metadata),
      pathIds: entry.pathIds,
      callerToken: callerToken?.token ?? "",
      ownToken: ownToken.token,
    });
    const { index, tokens } = hop.path;
    if (index > 1 && !mayRelay(peer.spiffeId))
      throw new NsmError(
        "PERMISSION_DENIED",
        "not-a-relay",
        `${peer.spiffeId} may not register ${entry.name} in the name of others: begin the path with the own token, or add its id to the managers`,
      );
    authorizeRegistration({
      tokens: tokens.slice(0, index + 1),
      index,
      peerCertificate: peer.certificate,
      nowMs: clock.now(),
      owners: ownersOf(entry.name, spiffeIdOf(tokens[0] ?? "")),
    });
    const ctx: RegistryContext = {
      signal: caller.signal,
      deadlineMs: caller.deadlineMs,
      peer,
      registration: { path: hop.path },
      latestExpiryMs: Math.min(ownToken.expiresMs, callerToken?.expiresMs ?? Infinity),
    };
    const leave = () => {
      const answer = leaveRegistration(hop, signedFor(peer, ctx.registration.path, index));
      if (answer !== undefined) caller.sendHeader({ [PATH_KEY]: writeRegistrationPath(answer) });
    };
    return { hop, ctx, leave };
  };
  /** The path with our own token as this caller can verify it. */
  const signedFor = ({ own }: Peer, path: RegistrationPath, at: number): RegistrationPath => {
    const again = signAgain(minter, own.svid, path.tokens[at] ?? "");
    return again === undefined ? path : { ...path, tokens: path.tokens.with(at, again.token) };
  };
  return {
    register: (entry: T, caller: Caller): Promise<T> =>
      counted("register", async () => {
        checkLimits(entry);
        const { hop, ctx, leave } = enter(entry, caller);
        entry.pathIds = [...hop.pathIds];
        const stored = await registry.register(entry, ctx);
        leave();
        return stored;
      }),
    unregister: (entry: T, caller: Caller): Promise<Empty> =>
      counted("unregister", async () => {
        checkLimits(entry);
        const { ctx, leave } = enter(entry, caller);
        await registry.unregister(entry, ctx);
        leave();
        return create(EmptySchema);
      }),
    async *find(entry: T, watch: boolean, { peer, signal }: Caller): AsyncGenerator<Found<T>> {
      using open = countFind(kind, watch);
      void open;
      checkLimits(entry);
      using present = watch ? presence?.enter(peer.spiffeId) : undefined;
      void present;
      yield* registry.find({ entry, watch }, { signal });
    },
  };
}
