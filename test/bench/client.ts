/** One client process of the bench: does what it is told over the pipe, with the real calling side of the mesh. */
import { delay, systemClock } from "../../sdk/clock.ts";
import { messageOf } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { openMesh } from "../../sdk/mesh.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import type { Answer, Call, Commands } from "./commands.ts";
import { createRegistrations } from "./registrations.ts";
import { createWires } from "./wires.ts";

const FOREVER = new AbortController().signal;
const CONNECT_WITHIN_MS = 20_000;

interface Settings {
  readonly name: string;
  readonly spiffeSocket: string;
  readonly managerUrl: string;
}

async function main(settings: Settings): Promise<void> {
  const config = { spiffeSocket: settings.spiffeSocket, maxTokenLifetimeMs: 600_000 };
  const mesh = await openMesh(config, { log: silentLogger, signal: FOREVER });
  await connect(mesh, settings.managerUrl);
  const commands: Commands = {
    ...createWires(mesh, settings),
    ...createRegistrations(mesh, systemClock),
  };
  process.on("message", (call: Call) => void answer(commands, call).then((result) => process.send?.(result)));
  process.send?.("ready");
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

async function answer(commands: Commands, { id, method, args }: Call): Promise<Answer> {
  try {
    const command: unknown = Reflect.get(commands, method);
    if (typeof command !== "function") throw new Error(`no command ${method}`);
    return { id, value: await Reflect.apply(command, undefined, args) };
  } catch (error) {
    return { id, error: messageOf(error) };
  }
}

// Calls in progress when the bench lets go of us are nobody's affair any more.
process.once("disconnect", () => process.exit());
await main(JSON.parse(process.argv[2] ?? "{}"));
