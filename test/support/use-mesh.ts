/** One mesh for all tests of a file: made before the first, removed after the last, and nothing of it may be left then. */
import { afterAll, beforeAll } from "vitest";
import { expectNothingLeft, takeSettledInventory } from "./inventory.ts";
import type { Inventory } from "./inventory.ts";
import { startMesh } from "./mesh.ts";
import type { Mesh } from "./mesh.ts";
import type { MeshOptions } from "./mesh-topology.ts";

export interface UsedMesh extends Omit<Mesh, keyof AsyncDisposable> {
  /** Fails unless the machine is as it was when the mesh had started. */
  expectAsStarted(): Promise<void>;
}

/** For the top of a test file. What it returns may be used in tests and hooks. */
export function useMesh(options: MeshOptions): UsedMesh {
  let mesh: Mesh | undefined;
  let empty: Inventory | undefined;
  let started: Inventory | undefined;
  beforeAll(async () => {
    empty = await takeSettledInventory();
    mesh = await startMesh(options);
    started = await takeSettledInventory();
  }, 120_000);
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    if (empty !== undefined) await expectNothingLeft(empty);
  });
  const here = () => isThere(mesh);
  return {
    get folder() {
      return here().folder;
    },
    daemon: (name) => here().daemon(name),
    start: (name, env) => here().start(name, env),
    restart: (...names) => here().restart(...names),
    killPod: (name) => here().killPod(name),
    namespace: (place) => here().namespace(place),
    managerUrl: (node) => here().managerUrl(node),
    identityUrl: (node) => here().identityUrl(node),
    established: (client, interfaceName) => here().established(client, interfaceName),
    workload: (name, where, node) => here().workload(name, where, node),
    cut: (what) => here().cut(what),
    mend: () => here().mend(),
    expectAsStarted: () => expectNothingLeft(isThere(started)),
  };
}

function isThere<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the mesh of this file has not started");
  return value;
}
