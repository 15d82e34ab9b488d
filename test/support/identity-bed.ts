/** Identity authorities for tests, each in a directory of its own, whose only workload is the process of the test. */
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { expect, vi } from "vitest";
import { table } from "../../identity/config.ts";
import { openIdentity } from "../../identity/main.ts";
import { systemClock } from "../../sdk/clock.ts";
import type { Clock } from "../../sdk/clock.ts";
import { readConfig } from "../../sdk/config.ts";
import { silentLogger } from "../../sdk/log.ts";
import { createFederationClient } from "../../sdk/spiffe/federation-client.ts";
import type { FederationClient } from "../../sdk/spiffe/federation-client.ts";
import type { X509Snapshot, X509Source } from "../../sdk/spiffe/source.ts";
import { openX509Source } from "../../sdk/spiffe/workload-api.ts";

export interface IdentityBed extends AsyncDisposable {
  readonly directory: string;
  /** `unix://…` of the Workload API. */
  readonly socket: string;
  /** What the authority logged, one JSON line each. */
  readonly lines: readonly string[];
  /** Registers this process as `spiffe://<trust domain><path>`; it fits nothing else. */
  register(path: string): void;
  /** Starts the authority; a second call without `stop` fails. */
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
  /** The identity of this process; closed with the bed. */
  source(): Promise<X509Source>;
  readonly federation: FederationClient;
  /** Resolves when a line matches. */
  logged(text: RegExp): Promise<void>;
}

const own = { uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };

export function openIdentityBed(trustDomain: string, clock: Clock = systemClock): IdentityBed {
  const directory = mkdtempSync(join(tmpdir(), "identity-"));
  chmodSync(directory, 0o755);
  const socket = `unix://${directory}/s`;
  const registrations = join(directory, "registrations.yaml");
  const lines: string[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const sources = new AsyncDisposableStack();
  let running: AsyncDisposable | undefined;
  const stop = async () => {
    await running?.[Symbol.asyncDispose]();
    running = undefined;
  };
  const bed: IdentityBed = {
    directory,
    socket,
    lines,
    register(path) {
      const list = [{ id: `spiffe://${trustDomain}${path}`, match: own }];
      writeFileSync(join(directory, "draft"), JSON.stringify({ registrations: list }));
      renameSync(join(directory, "draft"), registrations);
    },
    async start(env = {}) {
      if (running !== undefined) throw new Error("it runs already");
      const environment = {
        NSM_IDENTITY_TRUST_DOMAIN: trustDomain,
        NSM_IDENTITY_LISTEN_ON: socket,
        NSM_IDENTITY_STATE_DIR: join(directory, "state"),
        NSM_IDENTITY_REGISTRATIONS: registrations,
        ...env,
      };
      const config = readConfig(table, environment, (line) => expect.fail(line));
      running = await openIdentity(config, log, clock);
    },
    stop,
    async source() {
      const { signal } = new AbortController();
      return sources.use(await openX509Source({ socket, log: silentLogger, signal, waitMs: 5000 }));
    },
    federation: createFederationClient({ socket }),
    logged: (text) =>
      vi.waitFor(() => expect(lines).toContainEqual(expect.stringMatching(text)), { timeout: 5000 }),
    async [Symbol.asyncDispose]() {
      await sources.disposeAsync();
      await stop();
      rmSync(directory, { recursive: true });
    },
  };
  bed.register("/proxy/x");
  return bed;
}

/** Resolves with the first snapshot that fits. */
export async function snapshotWith(
  source: X509Source,
  fits: (snapshot: X509Snapshot) => boolean,
  timeout = 10_000,
): Promise<X509Snapshot> {
  return await vi.waitFor(
    () => {
      const snapshot = source.current();
      expect(fits(snapshot)).toBe(true);
      return snapshot;
    },
    { timeout, interval: 10 },
  );
}
