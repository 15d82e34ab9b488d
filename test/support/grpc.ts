/** Servers and session pools for tests, in a directory of their own, with identities of one trust domain. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService } from "../../api/gen/networkservice_pb.js";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { ClientLimits, ServerLimits } from "../../sdk/grpc/limits.ts";
import type { Authorize } from "../../sdk/grpc/accept.ts";
import type { Handlers } from "../../sdk/grpc/handlers.ts";
import { openServer } from "../../sdk/grpc/server.ts";
import type { GrpcServer, Listen } from "../../sdk/grpc/server.ts";
import { createSessionPool } from "../../sdk/grpc/sessions.ts";
import type { SessionPool } from "../../sdk/grpc/sessions.ts";
import { silentLogger } from "../../sdk/log.ts";
import type { Logger } from "../../sdk/log.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { makeAuthority } from "./certificates.ts";
import type { TestAuthority } from "./certificates.ts";
import { makeSource } from "./identity.ts";
import type { TestSource } from "./identity.ts";

export type ServiceHandlers = Handlers<typeof NetworkService>;
export type MonitorHandlers = Handlers<typeof MonitorConnection>;

export interface ServeOptions {
  readonly source?: X509Source;
  readonly listen?: readonly (string | Listen)[];
  readonly service?: Partial<ServiceHandlers>;
  readonly monitor?: MonitorHandlers["monitorConnections"];
  /** For the monitor service only. */
  readonly authorizeMonitor?: Authorize;
  readonly limits?: Partial<ServerLimits>;
  readonly log?: Logger;
  readonly isNeighbour?: (spiffeId: string) => boolean;
}

/** What is opened here is closed with it, pools first. */
export interface Bed extends AsyncDisposable {
  readonly dir: string;
  readonly authority: TestAuthority;
  /** `unix:///…/<name>.sock` in the bed's directory. */
  url(name?: string): string;
  source(path: string, lifetimeMs?: number): Promise<TestSource>;
  /** Listens on `url()` as `/server` and answers a Request with the caller's id, unless told otherwise. */
  serve(options?: ServeOptions): Promise<GrpcServer>;
  pool(source: X509Source, limits?: Partial<ClientLimits>): SessionPool;
}

export async function openBed(): Promise<Bed> {
  await using stack = new AsyncDisposableStack();
  const dir = stack.adopt(await mkdtemp(join(tmpdir(), "nsm-grpc-")), (path) =>
    rm(path, { recursive: true }),
  );
  const authority = await makeAuthority("example.org");
  const servers = stack.use(new AsyncDisposableStack());
  const pools = stack.use(new AsyncDisposableStack());
  const resources = stack.move();
  const bed: Bed = {
    dir,
    authority,
    url: (name = "server") => `unix://${dir}/${name}.sock`,
    source: (path, lifetimeMs = 3_600_000) => makeSource(authority, path, { lifetimeMs }),
    async serve(options = {}) {
      const source = options.source ?? (await bed.source("/server"));
      const { listen = [bed.url()], limits = {}, log = silentLogger, authorizeMonitor } = options;
      const { isNeighbour = () => false } = options;
      const base = { verify: verifySvid, clock: systemClock, source, listen, limits, log, isNeighbour };
      const server = await openServer(base, (add) => {
        add(NetworkService, { ...echo, ...options.service });
        add(MonitorConnection, { monitorConnections: options.monitor ?? nothing }, authorizeMonitor);
      });
      return servers.use(server);
    },
    pool: (source, limits = {}) =>
      pools.use(
        createSessionPool({ verify: verifySvid, clock: systemClock, log: silentLogger, source, limits }),
      ),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
  return bed;
}

export const echo: ServiceHandlers = {
  request: (_, { peer }) => Promise.resolve(create(ConnectionSchema, { id: peer.spiffeId })),
  close: () => Promise.resolve(create(NetworkService.method.close.output)),
};

async function* nothing() {
  yield create(ConnectionEventSchema);
}

/** What a promise rejects with; fails when that is no NsmError. */
export async function failureOf(promise: Promise<unknown>): Promise<NsmError> {
  const error: unknown = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof NsmError) return error;
  throw new Error("expected an NsmError", { cause: error });
}

/** Open descriptors of this process by what they are; the directory's own is not counted. */
export async function descriptorCount(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}

/** True as soon as no more descriptors than `before` are open; fails after 10 s. */
export async function descriptorsFellTo(before: number): Promise<boolean> {
  await until(`${before} descriptors`, async () => (await descriptorCount()) <= before);
  return true;
}

/** Resolves when `condition` holds; fails with `what` after `timeoutMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
