/** One client process of the bench: does what it is told over the pipe, with the real calling side of the mesh. */
import { delay, systemClock } from "../../sdk/clock.ts";
import { silentLogger } from "../../sdk/log.ts";
import { openMesh } from "../../sdk/mesh.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import type { Commands } from "./commands.ts";
import { createRegistrations } from "./registrations.ts";
import { serveCommands } from "./remote.ts";
import { createWires } from "./wires.ts";

const FOREVER = new AbortController().signal;
const CONNECT_WITHIN_MS = 20_000;

interface Settings {
  readonly name: string;
  readonly spiffeSocket: string;
  readonly managerUrl: string;
}

async function open(settings: Settings): Promise<Commands> {
  const config = { spiffeSocket: settings.spiffeSocket, maxTokenLifetimeMs: 600_000 };
  const mesh = await openMesh(config, { log: silentLogger, signal: FOREVER });
  await connect(mesh, settings.managerUrl);
  return { ...createWires(mesh, settings), ...createRegistrations(mesh, systemClock) };
}

/** The manager may still be starting. */
async function connect({ pool }: Mesh, url: string): Promise<void> {
  for (const end = performance.now() + CONNECT_WITHIN_MS; ;) {
    try {
      await pool.connect({ url });
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
      await delay(50);
    }
  }
}

await serveCommands(() => open(JSON.parse(process.argv[2] ?? "{}")));
