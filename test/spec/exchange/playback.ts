/**
 * The other components, as a session pool: compares what ours sends with what was sent at the recording, and answers with what
 * was answered then.
 *
 * Requests, Closes and registrations go in the recorded order of their kind. Finds are answered by what the recorded registry
 * knew, since ours asks seldom and watches instead. Monitor streams carry what the recorded ones carried.
 */
import { create, fromJson, toJson } from "@bufbuild/protobuf";
import type { DescMessage, JsonValue, Message, MessageShape } from "@bufbuild/protobuf";
import { ConnectionEventSchema, ConnectionEventType } from "../../../api/gen/connection_pb.js";
import type { ConnectionEvent } from "../../../api/gen/connection_pb.js";
import type { NsmError } from "../../../sdk/errors.ts";
import { createEventQueue } from "../../../sdk/event-queue.ts";
import type { EventQueue } from "../../../sdk/event-queue.ts";
import type { SessionInfo } from "../../../sdk/grpc/session.ts";
import type { CallContext, SessionPool, Target } from "../../../sdk/grpc/sessions.ts";
import type { Method } from "../../../sdk/grpc/service.ts";
import { failureOf, localise, unreachable, withMtu } from "./answers.ts";
import type { Bench } from "./bench.ts";
import { differencesOf } from "./compare.ts";
import { differenceOf } from "./differences.ts";
import { createDirectory } from "./directory.ts";
import type { Directory } from "./directory.ts";
import { metadataDifferences } from "./metadata.ts";
import { normalRequest } from "./normalise.ts";
import type { Side } from "./normalise.ts";
import { memberOf } from "./places.ts";
import { checkStream, followed } from "./streams.ts";
import { certificateOf, isKilled, methodOf, requestOf, responsesOf } from "./recording.ts";
import type { RecordedCall, RecordedComponent } from "./recording.ts";

/** Tokens count in whole seconds, and half a second may have gone by waiting for pauses between tries. */
const MOMENT_MS = 1500;

export interface Playback {
  readonly pool: SessionPool;
  /** Moves on in the recording: registries know what they knew then, a message of a recorded stream arrives. */
  pass(position: number): void;
  deliver(call: RecordedCall, index: number): void;
  /** While ours handles a call: what it sends meanwhile is sent on somebody's behalf. */
  during<T>(call: RecordedCall, run: () => Promise<T>): Promise<T>;
  /** Recorded calls that ours has not made; those that it never makes are left out. */
  unsent(): readonly RecordedCall[];
  /** A component dies: its streams break, its calls fail. */
  kill(name: string): void;
  /** False for the address of a component that is dead. */
  isAlive(url: string): boolean;
  /** The case is over: whatever ours still does to shut down is not looked at. */
  stop(): void;
  /** What ours sent and what was recorded, in order. */
  readonly sent: readonly { readonly call: RecordedCall; readonly answer: JsonValue }[];
}

export function createPlayback(bench: Bench): Playback {
  const { recorded, component, report, subject } = bench;
  const outgoing = recorded.calls.filter(({ client }) => client === component.name);
  const never = outgoing.filter(
    (call) => differenceOf("unsent", call, recorded, component.name) !== undefined,
  );
  const waiting = new Set(outgoing.filter((call) => !methodOf(call).isStream && !never.includes(call)));
  const directories = new Map<string, Directory>();
  const monitors = new Map<string, Set<EventQueue<ConnectionEvent>>>();
  const sent: { call: RecordedCall; answer: JsonValue }[] = [];
  let position = 0;
  let handled: RecordedCall | undefined;
  let stopped = false;
  /** Of the last wire: recorded events have none. */
  let mtu: number | undefined;

  const directoryOf = (server: string): Directory => {
    let known = directories.get(server);
    if (known === undefined) {
      known = createDirectory(recorded, server, bench.places);
      directories.set(server, known);
    }
    known.pass(position);
    return known;
  };
  const reach = ({ url, expect }: Target): RecordedComponent => {
    if (stopped) throw unreachable("the case is over");
    const server = bench.places.componentAt(url);
    if (server === undefined) throw unreachable(`${url} is nobody's address`);
    if (isKilled(recorded, server.name, position)) throw unreachable(`${server.name} is dead`);
    if (expect?.(server.spiffeId) === false)
      report.add({ component: component.name, call: undefined, lines: [`pins refuse ${server.spiffeId}`] });
    return server;
  };
  const session = (server: RecordedComponent): SessionInfo => ({
    peerId: server.spiffeId,
    peerCertificate: certificateOf(server),
    own: bench.own,
    process: undefined,
  });
  const unexpected = (path: string, server: string, request: JsonValue): NsmError => {
    const line = `sends ${path} to ${server}, which nobody recorded: ${JSON.stringify(request).slice(0, 300)}`;
    report.add({ component: component.name, call: undefined, lines: [line] });
    return unreachable("not recorded");
  };

  const unary = async <I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context: CallContext = {},
  ) => {
    const server = reach(target);
    const path = `/${method.parent.typeName}/${method.name}`;
    const json = toJson(method.input, request);
    const asks = handled && differenceOf("asks", handled, recorded, component.name);
    if (handled !== undefined && asks !== undefined) {
      report.add({ component: component.name, call: handled, lines: [`asks ${path}`], record: asks.record });
      throw handled.status?.code === 0 ? unreachable("not recorded") : failureOf(handled);
    }
    const call = [...waiting].find((each) => each.method === path && each.server === server.name);
    if (call === undefined) throw unexpected(path, server.name, json);
    waiting.delete(call);
    report.count(`${component.role} sent ${method.name}`, call);
    const metadata = (await context.metadata?.(session(server))) ?? {};
    const normal = (side: Side, value: JsonValue) =>
      normalRequest(bench, call, value, side, handled === undefined);
    const theirs = normal("recorded", toJson(methodOf(call).input, requestOf(call)));
    report.add({
      component: component.name,
      call,
      lines: [
        ...differencesOf(normal("ours", json), theirs, subject),
        ...metadataDifferences(metadata, call.metadata, subject),
        ...(handled === undefined ? [] : contextLines(bench, handled, call, context)),
        ...(never.some(({ begin }) => begin < call.begin) ? [] : momentLines(bench, call)),
      ],
    });
    if (call.status !== undefined && call.status.code !== 0) throw failureOf(call);
    const [answer] = responsesOf(call);
    if (answer === undefined) throw unreachable(`call ${call.n} was never answered`);
    const localised = localise(bench, toJson(methodOf(call).output, answer));
    const response = fromJson(
      method.output,
      component.role === "forwarder" ? withMtu(localised, json) : localised,
    );
    sent.push({ call, answer: localised });
    mtu = Number(memberOf(memberOf(toJson(method.output, response), "context"), "MTU") ?? 0);
    return { response, header: { get: (key: string) => call.header?.[key] ?? [] } };
  };

  async function* stream<I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context: CallContext = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const server = reach(target);
    const signal = context.signal ?? new AbortController().signal;
    const asked = toJson(method.input, request);
    checkStream(bench, outgoing, server.name, method, asked);
    if (method.localName === "find") {
      for await (const found of directoryOf(server.name).find(method.input, asked, signal))
        yield fromJson(method.output, toJson(method.output, ofType(method.output, found)));
      return;
    }
    const queue = createEventQueue<ConnectionEvent>(1000, signal);
    const queues = monitors.get(server.name) ?? new Set();
    monitors.set(server.name, queues.add(queue));
    queue.push(create(ConnectionEventSchema, { type: ConnectionEventType.INITIAL_STATE_TRANSFER }));
    try {
      for await (const event of queue) yield ofType(method.output, event);
    } finally {
      queues.delete(queue);
    }
  }

  return {
    pool: {
      unary,
      stream,
      connect: (target) => Promise.resolve(session(reach(target))),
      end: () => undefined,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    sent,
    pass(to) {
      position = to;
      for (const directory of directories.values()) directory.pass(to);
    },
    deliver(call, index) {
      const message = responsesOf(call)[index];
      const at = call.responses[index]?.at ?? 0;
      if (message === undefined || call !== followed(outgoing, call.server, at)) return;
      const event = fromJson(ConnectionEventSchema, localise(bench, toJson(methodOf(call).output, message)));
      // A stream that was opened anew begins with what our one stream hears as a change.
      if (event.type === ConnectionEventType.INITIAL_STATE_TRANSFER) event.type = ConnectionEventType.UPDATE;
      // Nobody deletes what ours has not closed.
      if (event.type === ConnectionEventType.DELETE && never.some(({ begin }) => begin < at)) return;
      if (mtu !== undefined)
        for (const { context } of Object.values(event.connections)) if (context) context.MTU = mtu;
      for (const queue of monitors.get(call.server) ?? []) queue.push(event);
    },
    async during(call, run) {
      handled = call;
      try {
        return await run();
      } finally {
        handled = undefined;
      }
    },
    unsent: () => [...waiting],
    kill(name) {
      for (const queue of monitors.get(name) ?? []) queue.end(unreachable(`${name} died`));
    },
    isAlive(url) {
      const server = bench.places.componentAt(url);
      return server !== undefined && !isKilled(recorded, server.name, position);
    },
    stop() {
      stopped = true;
    },
  };
}

/** What is sent on somebody's behalf is sent during that call, with the time that is left of it. */
function contextLines(
  { clock }: Bench,
  served: RecordedCall,
  call: RecordedCall,
  { deadlineMs }: CallContext,
) {
  const lines: string[] = [];
  if (call.begin < served.begin || call.begin > (served.end ?? Infinity))
    lines.push(`ours sends it while it serves call ${served.n}`);
  if (served.timeoutMs === undefined || call.timeoutMs === undefined) return lines;
  const leftMs = deadlineMs === undefined ? Infinity : deadlineMs - clock.now();
  if (Math.abs(leftMs - call.timeoutMs) > MOMENT_MS)
    lines.push(`ours leaves it ${leftMs} ms, recorded are ${call.timeoutMs}`);
  return lines;
}

/** Ours does at about the same time what the recorded component did: refresh, renew, close at the end of a lease. */
function momentLines({ recorded, clock }: Bench, call: RecordedCall): string[] {
  const lateMs = clock.now() - Date.parse(recorded.startedAt) - call.ms;
  return Math.abs(lateMs) <= MOMENT_MS ? [] : [`ours sends it ${lateMs} ms after the recorded moment`];
}

function ofType<D extends DescMessage>(schema: D, message: Message): MessageShape<D> {
  if (message.$typeName !== schema.typeName) throw new Error(`${message.$typeName} is no ${schema.typeName}`);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the type name is the type
  return message as MessageShape<D>;
}
