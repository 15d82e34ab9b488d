/** Chooses the endpoint of a connection and tries the candidates in turn (docs/protocol.md, "Matching"). */
import { clone } from "@bufbuild/protobuf";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { State } from "../../api/gen/connection_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { CallContext, Element } from "../chain.ts";
import type { Clock } from "../clock.ts";
import type { NextHop, WithNextHop } from "./target.ts";
import { formerHop } from "./former-hop.ts";
import type { FormerHopOptions } from "./former-hop.ts";
import { hopTo } from "./hop-to.ts";
import type { HopToOptions } from "./hop-to.ts";
import { connectionOf } from "./update-path.ts";
import { NsmError, asNsmError, messageOf } from "../errors.ts";
import type { CodeName } from "../errors.ts";
import type { Candidate } from "../match.ts";
import { tries } from "../prefer.ts";
import { createTurns } from "../turns.ts";
import { hasDomain, splitDomain } from "../domains/name.ts";
import { createSilentDomains } from "../domains/silence.ts";
import { candidatesOf } from "../candidates.ts";
import type { CandidateOptions } from "../candidates.ts";
import type { Reach } from "../reach.ts";

/** Failures that another endpoint would not mend: the caller's own side is at fault, or the call is over. */
const FINAL: ReadonlySet<CodeName> = new Set(["INVALID_ARGUMENT", "ALREADY_EXISTS", "ABORTED", "CANCELLED"]);

/** For one candidate, as long as there are others: far more than a chain of endpoints needs to be made. */
const PATIENCE_MS = 4000;

export interface SelectOptions<C> extends CandidateOptions, Omit<FormerHopOptions, "view"> {
  readonly clock: Clock;
  /** Throws for a hop that is known not to answer. */
  readonly refuseStopped?: (hop: NextHop) => void;
  /** Without it every hop is waited for that has others beside it. */
  readonly reach?: Reach;
  /** True when another forwarder of the mesh asks: it has made the choice. */
  readonly isChosen: (ctx: C) => boolean;
  /** Whoever names an endpoint has others to ask, and had better hear soon that the hop is lost. */
  readonly hasOthers?: boolean;
}

interface Choice {
  readonly endpoint: string;
  readonly hop: NextHop;
}

/** State: the choice per connection, so that refresh and close go where the first request went; dropped on close. */
export function selectEndpoint<Needs>(
  options: SelectOptions<CallContext & Needs>,
): Element<Needs, WithNextHop> {
  const choices = new Map<string, Choice>();
  const turns = createTurns();
  const silent = createSilentDomains(options.clock);

  return (next) => {
    const attempt = async (request: NetworkServiceRequest, ctx: CallContext & Needs, choice: Choice) => {
      const { id } = connectionOf(request);
      options.refuseStopped?.(choice.hop);
      connectionOf(request).networkServiceEndpointName = choice.endpoint;
      try {
        const response = await next.request(request, { ...ctx, nextHop: choice.hop });
        choices.set(id, choice);
        silent.note(choice.endpoint, undefined);
        return response;
      } catch (error) {
        silent.note(choice.endpoint, error);
        throw error;
      }
    };
    const attemptNamed = async (request: NetworkServiceRequest, ctx: CallContext & Needs, choice: Choice) => {
      if (options.hasOthers !== true) return await attempt(request, ctx, choice);
      using watch = options.reach?.watch(choice.hop, () => []);
      const signal = watch === undefined ? ctx.signal : AbortSignal.any([ctx.signal, watch.signal]);
      return await attempt(request, { ...ctx, signal }, choice).catch((cause: unknown) => {
        throw watch?.signal.aborted === true && !ctx.signal.aborted ? watch.signal.reason : cause;
      });
    };
    const tryInTurn = async (request: NetworkServiceRequest, ctx: CallContext & Needs) => {
      const found = await candidatesOf(options, connectionOf(request), options.isChosen(ctx), ctx.signal);
      if (found.kind === "named")
        return await attemptNamed(request, ctx, {
          endpoint: found.endpoint.name,
          hop: hopTo(found.endpoint, options),
        });
      connectionOf(request).payload = found.payload;
      const failures: NsmError[] = [];
      const { id, networkService } = connectionOf(request);
      const inTurn = (others: readonly Candidate[]) => tries(turns, networkService, others);
      const { reach } = options;
      const isHopLost = ({ url }: NetworkServiceEndpoint) => reach?.isLost({ url }) === true;
      const isLost = (endpoint: NetworkServiceEndpoint) => silent.has(endpoint.name) || isHopLost(endpoint);
      /** Domains that have not answered this very Request: their other endpoints need not be asked. */
      const unanswered = new Set<string>();
      for (const { endpoint } of lastOf(found.candidates, choices.get(id)?.endpoint, inTurn, isLost)) {
        const domain = hasDomain(endpoint.name) ? splitDomain(endpoint.name).domain : undefined;
        if (domain !== undefined && unanswered.has(domain)) continue;
        const copy = clone(NetworkServiceRequestSchema, request);
        const hasOthers = failures.length < found.candidates.length - 1;
        try {
          const choice = { endpoint: endpoint.name, hop: hopTo(endpoint, options) };
          if (isHopLost(endpoint)) await refuseLost(choice.hop, reach, ctx.signal);
          using patience = hasOthers ? patienceOf(options.clock, endpoint.name) : undefined;
          using watch = hasOthers
            ? reach?.watch(choice.hop, () => hopsOf(found.candidates, options))
            : undefined;
          const signal = AbortSignal.any(
            [ctx.signal, patience?.signal, watch?.signal].filter((each) => each !== undefined),
          );
          return await attempt(copy, { ...ctx, signal }, choice).catch((cause: unknown) => {
            const over = [patience, watch].find((each) => each?.signal.aborted);
            throw over !== undefined && !ctx.signal.aborted ? over.signal.reason : cause;
          });
        } catch (error) {
          if (ctx.signal.aborted || (error instanceof NsmError && FINAL.has(error.code))) throw error;
          options.log.info(
            { connection: connectionOf(request).id, nse: endpoint.name, err: error },
            "endpoint failed",
          );
          failures.push(failureOf(endpoint, error));
          if (domain !== undefined && silent.has(endpoint.name)) unanswered.add(domain);
        }
      }
      throw allFailed(connectionOf(request), failures);
    };
    return {
      async request(request, ctx) {
        const connection = connectionOf(request);
        const known = choices.get(connection.id);
        const sameEndpoint =
          known !== undefined &&
          connection.state !== State.RESELECT_REQUESTED &&
          (connection.networkServiceEndpointName === "" ||
            connection.networkServiceEndpointName === known.endpoint);
        if (sameEndpoint) return await attempt(request, ctx, known);
        return await tryInTurn(request, ctx);
      },
      async close(connection, ctx) {
        const nextHop = choices.get(connection.id)?.hop ?? (await formerHop(options, connection, ctx.signal));
        choices.delete(connection.id);
        await next.close(connection, { ...ctx, nextHop });
      },
    };
  };
}

/** A peer that hangs (a frozen process, a node that is gone) does not keep the others from being asked. */
function patienceOf(clock: Clock, name: string): Disposable & { readonly signal: AbortSignal } {
  const over = new AbortController();
  const timer = clock.timer(PATIENCE_MS, () => {
    const why = `endpoint ${name} did not answer within ${PATIENCE_MS} ms`;
    over.abort(new NsmError("UNAVAILABLE", "endpoint-silent", why));
  });
  return { signal: over.signal, [Symbol.dispose]: () => timer[Symbol.dispose]() };
}

/** Who served until now and is to be left comes after all others: better than nobody. Before it come those on nodes that do not answer. */
function* lastOf(
  candidates: readonly Candidate[],
  left: string | undefined,
  inTurn: (others: readonly Candidate[]) => Iterable<Candidate>,
  isLost: (endpoint: NetworkServiceEndpoint) => boolean,
): Generator<Candidate> {
  const lost: Candidate[] = [];
  for (const candidate of inTurn(candidates.filter(({ endpoint }) => endpoint.name !== left))) {
    if (isLost(candidate.endpoint)) lost.push(candidate);
    else yield candidate;
  }
  yield* lost;
  yield* candidates.filter(({ endpoint }) => endpoint.name === left).slice(0, 1);
}

/** One question for all endpoints there. Throws UNAVAILABLE `hop-lost`. */
async function refuseLost(hop: NextHop, reach: Reach | undefined, signal: AbortSignal): Promise<void> {
  const left = new Promise<never>((_, reject) => {
    signal.addEventListener(
      "abort",
      () => reject(asNsmError(signal.reason, "CANCELLED", "caller-left", "the Request")),
      { once: true },
    );
  });
  if (reach === undefined || (await Promise.race([reach.comesBack(hop), left]))) return;
  throw new NsmError("UNAVAILABLE", "hop-lost", `${hop.url} does not answer: is its node down?`);
}

/** Each once, without those that are not to be dialled. */
function hopsOf(candidates: readonly Candidate[], options: HopToOptions): readonly NextHop[] {
  const byUrl = new Map(candidates.map(({ endpoint }) => [endpoint.url, endpoint]));
  return [...byUrl.values()].flatMap((endpoint) => {
    try {
      return [hopTo(endpoint, options)];
    } catch {
      return []; // its own try says why
    }
  });
}

function failureOf(endpoint: NetworkServiceEndpoint, error: unknown): NsmError {
  const [code, reason] =
    error instanceof NsmError ? [error.code, error.reason] : (["INTERNAL", "internal"] as const);
  return new NsmError(code, reason, `${endpoint.name}: ${messageOf(error)}`, error);
}

/** One failure keeps its code; several are UNAVAILABLE unless they agree. */
function allFailed(connection: Connection, failures: readonly NsmError[]): NsmError {
  const [first] = failures;
  if (first === undefined) return new NsmError("NOT_FOUND", "no-candidates", "no endpoint was left to try");
  const agreed = failures.every(({ code }) => code === first.code);
  const texts = failures.map(({ message }) => message).join("; ");
  return new NsmError(
    agreed ? first.code : "UNAVAILABLE",
    agreed ? first.reason : "all-endpoints-failed",
    `network service ${connection.networkService}: ${failures.length} endpoint(s) tried, none served: ${texts}`,
    failures,
  );
}
