/** An operator of a proxy at the command line: talks to its admin socket by the operator's own SPIFFE identity. */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { address, commonTable, duration, readConfig } from "../sdk/config.ts";
import type { Environment, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Method } from "../sdk/grpc/service.ts";
import { idMatcher, idPatterns } from "../sdk/peer-ids.ts";
import { ExitCode } from "./exit-code.ts";
import { untilInterrupted } from "./interrupted.ts";
import { openOwnMesh } from "./own-mesh.ts";

/** What the commands that talk to a proxy read of the environment. */
export const proxyClientTable = {
  proxy: address(
    "NSM_PROXY_ADMIN",
    "unix:///run/nsm/proxy.sock",
    "where the proxy of this domain answers operators (NSM_PROXY_ADMIN_LISTEN_ON there); --proxy comes first",
  ),
  proxyIds: idPatterns("NSM_PROXY_IDS", Defaults.proxyIds, "who may answer as proxy"),
  dialTimeoutMs: duration("NSM_DIAL_TIMEOUT", "3s", "longest wait for a session with the proxy"),
  requestTimeoutMs: duration("NSM_REQUEST_TIMEOUT", "15s", "longest wait for an answer"),
  spiffeSocket: commonTable.spiffeSocket,
  maxTokenLifetimeMs: commonTable.maxTokenLifetimeMs,
} as const satisfies Table;

export interface ProxyClient extends AsyncDisposable {
  /** Throws the proxy's error, UNAVAILABLE, DEADLINE_EXCEEDED. */
  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>>;
  /** Without a limit of time. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): AsyncGenerator<MessageShape<O>, void, undefined>;
}

export interface ProxyClientOptions {
  /** `--proxy`; undefined takes the environment's. */
  readonly proxy: string | undefined;
  readonly env: Environment;
  readonly signal: AbortSignal;
}

/** Runs a command that talks to a proxy, and resolves with its exit code; 130 when it is interrupted. Throws as {@link openProxyClient}. */
export async function withProxy(
  proxy: string | undefined,
  run: (client: ProxyClient) => Promise<number>,
): Promise<number> {
  using interruption = untilInterrupted();
  const { signal } = interruption;
  try {
    await using client = await openProxyClient({ proxy, env: process.env, signal });
    return await run(client);
  } catch (error) {
    if (signal.aborted) {
      process.stderr.write("interrupted\n");
      return ExitCode.interrupted;
    }
    if (error instanceof NsmError && error.code === "UNIMPLEMENTED") throw noAdminSocket(error);
    throw error;
  }
}

function noAdminSocket(error: NsmError): NsmError {
  const text = `a server answers there, but not to operators: name the proxy's admin socket (NSM_PROXY_ADMIN_LISTEN_ON there) by --proxy or NSM_PROXY_ADMIN: ${error.message}`;
  return new NsmError("FAILED_PRECONDITION", "no-admin-socket", text, error);
}

/**
 * Resolves when the proxy has answered the handshake. Throws INVALID_ARGUMENT `bad-configuration`; UNAVAILABLE and PERMISSION_DENIED
 * without an identity; UNAVAILABLE when no proxy answers.
 */
export async function openProxyClient({ proxy, env, signal }: ProxyClientOptions): Promise<ProxyClient> {
  if (proxy !== undefined) checkProxy(proxy);
  const given = proxy === undefined ? {} : { NSM_PROXY_ADMIN: proxy };
  const config = readConfig(proxyClientTable, { ...env, ...given }, () => undefined);
  await using stack = new AsyncDisposableStack();
  const mesh = stack.use(
    await openOwnMesh(config, signal).catch(
      explain("a proxy answers operators only, and this process has no SPIFFE identity", ""),
    ),
  );
  const { pool } = mesh;
  const target = { url: config.proxy, expect: idMatcher(config.proxyIds, mesh.trustDomain) };
  await pool
    .connect(target, { signal, timeoutMs: config.dialTimeoutMs })
    .catch(
      explain(
        "no proxy",
        `. Run this where the proxy of this domain runs, or name its socket: --proxy (or NSM_PROXY_ADMIN). ${mesh.spiffeId} must be among its NSM_OPERATOR_IDS`,
      ),
    );
  const resources = stack.move();
  return {
    async call(method, request) {
      const context = { signal, timeoutMs: config.requestTimeoutMs };
      return (await pool.unary(target, method, create(method.input, request), context)).response;
    },
    stream: (method, request) => pool.stream(target, method, create(method.input, request), { signal }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The option by its own name, not by that of the variable that it stands for. */
function checkProxy(url: string): void {
  try {
    proxyClientTable.proxy.parse(url);
  } catch (error) {
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-configuration",
      `--proxy ${JSON.stringify(url)}: ${messageOf(error)}`,
    );
  }
}

function explain(before: string, after: string): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof NsmError) || error.code === "CANCELLED") throw error;
    throw new NsmError(error.code, error.reason, `${before}: ${error.message}${after}`, error);
  };
}
