/**
 * Child process: a workload that speaks the protocol by hand. It has an identity of its own and calls what it is told to, with
 * the tokens and metadata that it is told to; see `startWorkload`. Environment: SPIFFE_ENDPOINT_SOCKET.
 */
import { flushCompileCache } from "node:module";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Wires } from "../../api/gen/admin_pb.js";
import { MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService } from "../../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { createSessionPool } from "../../sdk/grpc/sessions.ts";
import { tokenMetadata } from "../../sdk/hops.ts";
import { signToken } from "../../sdk/jwt.ts";
import { silentLogger } from "../../sdk/log.ts";
import { decodeMessage, encodeMessage } from "../../sdk/message.ts";
import { netnsUrl } from "../../sdk/netns-url.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { openX509Source } from "../../sdk/spiffe/workload-api.ts";
import { createTokenMinter } from "../../sdk/token.ts";

/** One call: `method` is `<service type>/<method's name in TypeScript>`; null takes a metadata value away. */
export interface WireCall {
  readonly url: string;
  readonly method: string;
  readonly request: Uint8Array;
  readonly metadata: Readonly<Record<string, string | null>>;
  readonly timeoutMs: number | undefined;
}

export type Order =
  | { readonly do: "identity" }
  | { readonly do: "token"; readonly claims: Readonly<Record<string, unknown>> }
  | { readonly do: "unary"; readonly call: WireCall }
  | { readonly do: "stream"; readonly call: WireCall; readonly stream: number }
  | { readonly do: "endStream"; readonly stream: number };

export type Reply =
  | { readonly id: number; readonly value?: unknown; readonly error?: Failure }
  | { readonly stream: number; readonly message: Uint8Array }
  | { readonly stream: number; readonly end: Failure | undefined };

export interface Failure {
  readonly code: string;
  readonly reason: string;
  readonly message: string;
}

const SERVICES: readonly DescService[] = [
  Wires,
  NetworkService,
  MonitorConnection,
  NetworkServiceRegistry,
  NetworkServiceEndpointRegistry,
];

const source = await openX509Source({
  socket: process.env["SPIFFE_ENDPOINT_SOCKET"] ?? "",
  log: silentLogger,
  signal: new AbortController().signal,
});
const pool = createSessionPool({ source, verify: verifySvid, log: silentLogger, clock: systemClock });
const ownToken = tokenMetadata(createTokenMinter({ clock: systemClock }));
const streams = new Map<number, AbortController>();

function methodOf(name: string): DescMethod {
  const [service, method] = name.split("/");
  const found = SERVICES.find(({ typeName }) => typeName === service)?.methods.find(
    ({ localName }) => localName === method,
  );
  if (found === undefined) throw new Error(`no method ${name}`);
  return found;
}

function contextOf(call: WireCall) {
  return {
    timeoutMs: call.timeoutMs,
    metadata: (session: Parameters<typeof ownToken>[0]) => {
      const values: Record<string, string | null> = { ...ownToken(session), ...call.metadata };
      return Object.fromEntries(
        Object.entries(values).flatMap(([key, value]): [string, string][] =>
          value === null ? [] : [[key, value]],
        ),
      );
    },
  };
}

async function execute(order: Order): Promise<unknown> {
  switch (order.do) {
    case "identity":
      return {
        spiffeId: source.current().svid.id,
        generation: source.current().generation,
        netnsUrl: netnsUrl(),
      };
    case "token":
      return signToken(order.claims, source.current().svid.privateKey);
    case "unary": {
      const { call } = order;
      const method = methodOf(call.method);
      const request = decodeMessage(method.input, call.request);
      const { response } = await pool.unary({ url: call.url }, method, request, contextOf(call));
      return encodeMessage(method.output, response);
    }
    case "stream":
      void follow(order.stream, order.call);
      return undefined;
    case "endStream":
      streams.get(order.stream)?.abort();
      return undefined;
  }
}

async function follow(stream: number, call: WireCall): Promise<void> {
  const method = methodOf(call.method);
  const stop = new AbortController();
  streams.set(stream, stop);
  try {
    const request = decodeMessage(method.input, call.request);
    const context = { ...contextOf(call), signal: stop.signal };
    for await (const message of pool.stream({ url: call.url }, method, request, context))
      send({ stream, message: encodeMessage(method.output, message) });
    send({ stream, end: undefined });
  } catch (error) {
    send({ stream, end: failureOf(error) });
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof NsmError) return { code: error.code, reason: error.reason, message: error.message };
  return { code: "?", reason: "not-ours", message: messageOf(error) };
}

function send(reply: Reply): void {
  process.send?.(reply);
}

process.on("message", ({ id, order }: { id: number; order: Order }) => {
  execute(order).then(
    (value) => send({ id, value }),
    (error: unknown) => send({ id, error: failureOf(error) }),
  );
});
process.on("disconnect", () => process.exit(0));
flushCompileCache(); // many end by SIGKILL
send({ id: 0 });
