/** What a command needs of the mesh: the identity of whoever calls it, and sessions. */
import { systemClock } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { silentLogger } from "../sdk/log.ts";
import { openMesh } from "../sdk/mesh.ts";
import type { Mesh, MeshConfig } from "../sdk/mesh.ts";

/** A person does not want to wait for an authority that is not there, and gains nothing from giving up one that is only slow. */
const IDENTITY_WAIT = { waitMs: 3000, silentMs: 15_000 } as const;
/** Whoever waits for longer wants to know what for. */
const SAID_AFTER_MS = 2000;

interface Surroundings {
  readonly clock: Clock;
  /** Tells a person a line. */
  readonly say: (line: string) => void;
}

/** Throws as `openMesh`: after 3 s where no authority listens or it refuses, after 15 s where it says nothing. */
export async function openOwnMesh(
  config: MeshConfig,
  signal: AbortSignal,
  { clock, say }: Surroundings = {
    clock: systemClock,
    say: (line) => void process.stderr.write(`${line}\n`),
  },
): Promise<Mesh> {
  using _ = clock.timer(SAID_AFTER_MS, () =>
    say(`waiting for the identity authority at ${config.spiffeSocket} (SPIFFE_ENDPOINT_SOCKET)`),
  );
  return await openMesh({ ...config, identityWait: IDENTITY_WAIT }, { log: silentLogger, signal, clock });
}
