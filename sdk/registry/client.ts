/** Registries behind a gRPC session (docs/protocol.md, "Registration path"). */
import { create } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import {
  NetworkServiceEndpointQuerySchema,
  NetworkServiceEndpointRegistry,
  NetworkServiceQuerySchema,
  NetworkServiceRegistry,
} from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import { tokenMetadata } from "../hops.ts";
import type { Header } from "../grpc/caller.ts";
import type { Method } from "../grpc/service.ts";
import type { SessionInfo } from "../grpc/session.ts";
import type { SessionPool, Target } from "../grpc/sessions.ts";
import { streamUntilReplaced } from "../grpc/until-replaced.ts";
import { authorizeRegistrationAnswer } from "../policies.ts";
import { PATH_KEY, adoptAnswer, writeRegistrationPath } from "../registry-path.ts";
import type { TokenMinter } from "../token.ts";
import type { Found, Query, Registries, RegistryContext } from "./registry.ts";

export interface RegistryClientOptions {
  readonly pool: SessionPool;
  readonly target: Target;
  readonly minter: TokenMinter;
  readonly clock: Clock;
}

export function createRegistryClient(options: RegistryClientOptions): Registries {
  const { pool, target } = options;
  const change = createChange(options);
  const services = NetworkServiceRegistry.method;
  const endpoints = NetworkServiceEndpointRegistry.method;
  const metadata = tokenMetadata(options.minter);
  // Watches stay open, one a service or record: in the same session they would leave no stream to Register and Find.
  const watching: Target = { ...target, key: `${target.key ?? target.url}#watch` };
  // A list has the time to end by itself.
  const stream = <I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    query: MessageShape<I>,
    watch: boolean,
    signal: AbortSignal,
  ) =>
    watch
      ? streamUntilReplaced(pool, watching, method, query, { metadata, signal })
      : pool.stream(target, method, query, { metadata, signal });
  return {
    services: {
      register: (entry, ctx) =>
        change(ctx, (context) => pool.unary(target, services.register, entry, context)),
      async unregister(entry, ctx) {
        await change(ctx, (context) => pool.unary(target, services.unregister, entry, context));
      },
      async *find(
        { entry, watch }: Query<NetworkService>,
        { signal },
      ): AsyncGenerator<Found<NetworkService>> {
        const query = create(NetworkServiceQuerySchema, { networkService: entry, watch });
        for await (const found of stream(services.find, query, watch, signal))
          if (found.networkService !== undefined)
            yield { entry: found.networkService, deleted: found.deleted };
      },
    },
    endpoints: {
      register: (entry, ctx) =>
        change(ctx, (context) => pool.unary(target, endpoints.register, entry, context)),
      async unregister(entry, ctx) {
        await change(ctx, (context) => pool.unary(target, endpoints.unregister, entry, context));
      },
      async *find(
        { entry, watch }: Query<NetworkServiceEndpoint>,
        { signal },
      ): AsyncGenerator<Found<NetworkServiceEndpoint>> {
        const query = create(NetworkServiceEndpointQuerySchema, { networkServiceEndpoint: entry, watch });
        for await (const found of stream(endpoints.find, query, watch, signal))
          if (found.networkServiceEndpoint !== undefined)
            yield { entry: found.networkServiceEndpoint, deleted: found.deleted };
      },
    },
  };
}

interface ChangeContext {
  readonly signal: AbortSignal;
  readonly deadlineMs: number | undefined;
  readonly metadata: (session: SessionInfo) => Readonly<Record<string, string>>;
}

/** Register and Unregister carry the path with them, and check the one that comes back. */
function createChange({ minter, clock }: RegistryClientOptions) {
  const token = tokenMetadata(minter);
  return async <T>(
    { registration, signal, deadlineMs }: RegistryContext,
    call: (context: ChangeContext) => Promise<{ readonly response: T; readonly header: Header }>,
  ): Promise<T> => {
    const { path } = registration;
    let certificate: SessionInfo["peerCertificate"] | undefined;
    const metadata = (session: SessionInfo) => {
      certificate = session.peerCertificate;
      return { ...token(session), [PATH_KEY]: writeRegistrationPath(path) };
    };
    const { response, header } = await call({ signal, deadlineMs, metadata });
    const answered = adoptAnswer(path, header);
    const { index, tokens } = answered;
    authorizeRegistrationAnswer({
      tokens,
      index,
      peerCertificate: certificate,
      nowMs: clock.now(),
      owners: undefined,
    });
    registration.path = answered;
    return response;
  };
}
