/** Hand-made workloads of a test: processes in a pod, with an identity of their own, that call what the test says. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent, MonitorScopeSelectorSchema } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { z } from "zod";
import { NetworkServiceEndpointRegistry, NetworkServiceEndpointSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Method } from "../../sdk/grpc/service.ts";
import { COMPILE_CACHE } from "./compile-cache.ts";
import { eventually } from "./netns.ts";
import type { Failure, Order, Reply, WireCall } from "./workload-process.ts";

export interface WorkloadOptions {
  /** Name of the network namespace. */
  readonly netns: string;
  readonly gid: number;
  readonly identityUrl: string;
  /** Where calls go unless told otherwise. */
  readonly managerUrl: string;
  readonly env: NodeJS.ProcessEnv;
}

export interface CallOptions {
  readonly url?: string;
  /** Beside the own token, or instead of it; null takes a value away. */
  readonly metadata?: Readonly<Record<string, string | null>>;
  readonly timeoutMs?: number;
}

/** What a call was refused with. */
export class Refusal extends Error implements Failure {
  readonly code: string;
  readonly reason: string;

  constructor({ code, reason, message }: Failure) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

export interface Stream<T> {
  readonly messages: readonly T[];
  /** Undefined while it lasts; null after an end without error. */
  readonly end: Refusal | null | undefined;
  waitFor(test: (message: T) => boolean): Promise<T>;
  /** The refusal that ended it. */
  refused(): Promise<Refusal>;
  stop(): Promise<void>;
}

type Init<I extends DescMessage> = MessageInitShape<I>;

export interface Workload extends AsyncDisposable {
  readonly pid: number;
  readonly spiffeId: string;
  /** `inode://<device>/<inode>` of its network namespace. */
  readonly netnsUrl: string;
  /** Grows with every certificate that it was given. */
  generation(): Promise<number>;
  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: Init<I>,
    options?: CallOptions,
  ): Promise<MessageShape<O>>;
  stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: Init<I>,
    options?: CallOptions,
  ): Promise<Stream<MessageShape<O>>>;
  request(request: Init<typeof NetworkServiceRequestSchema>, options?: CallOptions): Promise<Connection>;
  close(connection: Connection, options?: CallOptions): Promise<void>;
  monitor(
    selector: Init<typeof MonitorScopeSelectorSchema>,
    options?: CallOptions,
  ): Promise<Stream<ConnectionEvent>>;
  /** Endpoints that the manager, or who is named in the options, knows now. */
  findEndpoints(
    query: Init<typeof NetworkServiceEndpointSchema>,
    options?: CallOptions,
  ): Promise<readonly NetworkServiceEndpoint[]>;
  /** A JWT of these claims, signed with the key of its certificate. */
  token(claims: Readonly<Record<string, unknown>>): Promise<string>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

const Identity = z.object({ spiffeId: z.string(), generation: z.number(), netnsUrl: z.string() });
const Bytes = z.instanceof(Uint8Array);

/** Resolves when it has its identity. */
export async function startWorkload(options: WorkloadOptions): Promise<Workload> {
  const child = fork(new URL("workload-process.ts", import.meta.url), [], {
    env: { ...options.env, ...COMPILE_CACHE, SPIFFE_ENDPOINT_SOCKET: options.identityUrl },
    execPath: "nsenter",
    execArgv: [
      `--net=/run/netns/${options.netns}`,
      "setpriv",
      `--regid=${options.gid}`,
      "--clear-groups",
      "--",
      process.execPath,
    ],
    serialization: "advanced",
  });
  const { ask, onStream } = createCalls(child);
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  await Promise.race([once(child, "message"), once(child, "exit")]);
  if (child.exitCode !== null) throw new Error(`the workload in ${options.netns} got no identity`);
  const { spiffeId, netnsUrl } = await ask({ do: "identity" }, Identity);

  const wireCall = <I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: Init<I>,
    { url = options.managerUrl, metadata = {}, timeoutMs }: CallOptions,
  ): WireCall => ({
    url,
    method: `${method.parent.typeName}/${method.localName}`,
    request: toBinary(method.input, create(method.input, request)),
    metadata,
    timeoutMs,
  });
  let streams = 0;
  const workload: Workload = {
    pid: child.pid ?? 0,
    spiffeId,
    netnsUrl,
    generation: async () => (await ask({ do: "identity" }, Identity)).generation,
    async call(method, request, more = {}) {
      const bytes = await ask({ do: "unary", call: wireCall(method, request, more) }, Bytes);
      return fromBinary(method.output, bytes);
    },
    async stream(method, request, more = {}) {
      const stream = ++streams;
      const followed = onStream(stream, (bytes) => fromBinary(method.output, bytes));
      await ask({ do: "stream", stream, call: wireCall(method, request, more) }, z.undefined());
      return Object.assign(followed, { stop: () => ask({ do: "endStream", stream }, z.undefined()) });
    },
    request: (request, more) => workload.call(NetworkService.method.request, request, more),
    async close(connection, more) {
      await workload.call(NetworkService.method.close, connection, more);
    },
    monitor: (selector, more) => workload.stream(MonitorConnection.method.monitorConnections, selector, more),
    async findEndpoints(networkServiceEndpoint, more) {
      const found = await workload.stream(
        NetworkServiceEndpointRegistry.method.find,
        { networkServiceEndpoint: create(NetworkServiceEndpointSchema, networkServiceEndpoint) },
        more,
      );
      await eventually("the end of the list", () => found.end !== undefined);
      if (found.end) throw found.end;
      return found.messages.flatMap(({ networkServiceEndpoint }) => networkServiceEndpoint ?? []);
    },
    token: (claims) => ask({ do: "token", claims }, z.string()),
    kill,
    [Symbol.asyncDispose]: kill,
  };
  return workload;
}

/** A copy that a test may change. */
export function copyOf(connection: Connection): Connection {
  return fromBinary(ConnectionSchema, toBinary(ConnectionSchema, connection));
}

interface Calls {
  readonly ask: <T>(order: Order, answer: z.ZodType<T>) => Promise<T>;
  readonly onStream: <T>(stream: number, decode: (bytes: Uint8Array) => T) => Omit<Stream<T>, "stop">;
}

function createCalls(child: ChildProcess): Calls {
  const waiting = new Map<number, (reply: { value?: unknown; error?: Failure }) => void>();
  const streams = new Map<number, (reply: { message?: Uint8Array; end?: Failure | undefined }) => void>();
  let last = 0;
  child.on("message", (reply: Reply) => {
    if ("stream" in reply) streams.get(reply.stream)?.(reply);
    else waiting.get(reply.id)?.(reply);
  });
  child.on("exit", () => {
    const error = { code: "?", reason: "workload-ended", message: "the process of the workload ended" };
    for (const settle of waiting.values()) settle({ error });
  });
  return {
    ask: <T>(order: Order, answer: z.ZodType<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        const id = ++last;
        waiting.set(id, ({ value, error }) => {
          waiting.delete(id);
          if (error === undefined) resolve(answer.parse(value));
          else reject(new Refusal(error));
        });
        child.send({ id, order });
      }),
    onStream: <T>(stream: number, decode: (bytes: Uint8Array) => T) => {
      const messages: T[] = [];
      let end: Refusal | null | undefined;
      streams.set(stream, (reply) => {
        if (reply.message !== undefined) messages.push(decode(reply.message));
        else end = reply.end === undefined ? null : new Refusal(reply.end);
      });
      return {
        messages,
        get end() {
          return end;
        },
        async waitFor(test: (message: T) => boolean): Promise<T> {
          const find = () => messages.filter(test).slice(0, 1);
          await eventually("a message of the stream", () => {
            if (end !== undefined) throw end ?? new Error("the stream ended");
            return find().length > 0;
          });
          for (const message of find()) return message;
          throw new Error("unreachable");
        },
        async refused(): Promise<Refusal> {
          await eventually("the end of the stream", () => end !== undefined);
          if (end === null || end === undefined) throw new Error("the stream ended without an error");
          return end;
        },
      };
    },
  };
}
