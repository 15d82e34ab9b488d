/** Wires as a client of the bench asks for them: each call timed, each device looked for. */
import { readFileSync } from "node:fs";
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { firstRequest } from "../../nsc/request.ts";
import type { CallContext } from "../../sdk/chain.ts";
import { messageOf } from "../../sdk/errors.ts";
import { createHops } from "../../sdk/hops.ts";
import { silentLogger } from "../../sdk/log.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import { netnsUrl } from "../../sdk/netns-url.ts";
import type { Commands, Timings, WireWish } from "./commands.ts";
import { inParallel } from "./parallel.ts";

const DEADLINE_MS = 15_000;

interface Held {
  readonly device: string;
  readonly first: NetworkServiceRequest;
  connection: Connection;
}

type WireCommands = Pick<Commands, "pairs" | "hold" | "refresh" | "release">;

export function createWires(mesh: Mesh, options: { name: string; managerUrl: string }): WireCommands {
  const { name, managerUrl } = options;
  const hops = createHops({ ...mesh, name, log: silentLogger });
  const hop = { url: managerUrl };
  const held: Held[] = [];
  let number = 0;

  const open = async (wish: WireWish, timings: Timings): Promise<Held> => {
    number++;
    const device = wish.interfaceName.replace("%", String(number));
    const first = firstRequest({
      id: `${name}-${number}`,
      name,
      networkService: wish.service,
      labels: {},
      interfaceName: device,
      netnsUrl: netnsUrl(),
    });
    const request = clone(NetworkServiceRequestSchema, first);
    const connection = await timed(timings.requestMs, () => hops.request(hop, request, context()));
    requireDevice(device, true);
    return { device, first, connection };
  };
  const shut = async ({ connection, device }: Held, timings: Timings) => {
    await timed(timings.closeMs, () => hops.close(hop, connection, context()));
    requireDevice(device, false);
  };
  const renew = async (wire: Held, timings: Timings) => {
    const request = create(NetworkServiceRequestSchema, {
      connection: clone(ConnectionSchema, wire.connection),
      mechanismPreferences: wire.first.mechanismPreferences,
    });
    wire.connection = await timed(timings.requestMs, () => hops.request(hop, request, context()));
  };

  return {
    pairs: (wish, count) => counting(count, 1, async (timings) => shut(await open(wish, timings), timings)),
    hold: (wish, count, parallel) =>
      counting(count, parallel, async (timings) => void held.push(await open(wish, timings))),
    refresh: (count) =>
      counting(count, 1, async (timings, index) => {
        const wire = held[index % held.length];
        if (wire === undefined) throw new Error("there is no wire to refresh");
        await renew(wire, timings);
      }),
    release(parallel) {
      const wires = held.splice(0);
      return counting(wires.length, parallel, async (timings, index) => {
        const wire = wires[index];
        if (wire !== undefined) await shut(wire, timings);
      });
    },
  };
}

/** Runs `body` so often; what it throws is counted, not thrown. */
async function counting(
  count: number,
  parallel: number,
  body: (timings: Timings, index: number) => Promise<void>,
): Promise<Timings> {
  const timings: Timings = { requestMs: [], closeMs: [], failed: [] };
  await inParallel(count, parallel, (index) =>
    body(timings, index).catch((error: unknown) => void timings.failed.push(messageOf(error))),
  );
  return timings;
}

async function timed<T>(into: number[], call: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await call();
  into.push(performance.now() - start);
  return result;
}

function context(): CallContext {
  const deadlineMs = Date.now() + DEADLINE_MS;
  return { signal: AbortSignal.timeout(DEADLINE_MS), deadlineMs, peer: undefined, callerToken: undefined };
}

/** The kernel's own word on whether this namespace has a device (proc_pid_net(5)). */
function requireDevice(name: string, expected: boolean): void {
  const devices = readFileSync("/proc/self/net/dev", "utf8").split("\n");
  const present = devices.some((line) => line.trimStart().startsWith(`${name}:`));
  if (present !== expected) throw new Error(`device ${name} is ${present ? "still" : "not"} there`);
}
