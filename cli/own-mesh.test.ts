import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { openOwnMesh } from "./own-mesh.ts";

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "own-mesh-"));
  path = join(directory, "s");
});
afterEach(() => rmSync(directory, { recursive: true }));

/** Opens the mesh by a clock that stands; `settled` is how it ended. */
function begin() {
  const clock = createFakeClock();
  const said: string[] = [];
  const settled: unknown[] = [];
  const config = { spiffeSocket: `unix://${path}`, maxTokenLifetimeMs: 1000 };
  const running = openOwnMesh(config, new AbortController().signal, {
    clock,
    say: (line) => said.push(line),
  });
  running.then(
    () => settled.push("opened"),
    (error: unknown) => settled.push(error),
  );
  return { clock, said, settled };
}

test("an authority that listens and says nothing is waited for; after two seconds it is said what for", async () => {
  const taken = new Set<Socket>();
  const server = createServer((socket) => {
    taken.add(socket);
    socket.on("error", () => undefined).resume();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    const { clock, said, settled } = begin();
    await vi.waitFor(() => expect(taken.size).toBe(1), { timeout: 10_000 });
    await clock.advance(1999);
    expect(said).toEqual([]);
    await clock.advance(1);
    expect(said).toEqual([`waiting for the identity authority at unix://${path} (SPIFFE_ENDPOINT_SOCKET)`]);
    await clock.advance(12_999);
    expect(settled).toEqual([]);
    await clock.advance(1);
    await vi.waitFor(() => expect(settled).toHaveLength(1), { timeout: 10_000 });
    expect(settled[0]).toMatchObject({ code: "UNAVAILABLE", reason: "identity-unavailable" });
    expect(said).toHaveLength(1);
    expect(clock.armed).toBe(0);
  } finally {
    for (const socket of taken) socket.destroy();
    server.close();
  }
});

test("one that is not there is given up after three", async () => {
  const { clock, said, settled } = begin();
  // Between two attempts: the first has failed, by real input and output.
  await vi.waitFor(() => expect(clock.armed).toBe(2), { timeout: 10_000, interval: 5 });
  await clock.advance(2990);
  expect(said).toHaveLength(1);
  expect(settled).toEqual([]);
  await clock.advance(10);
  await vi.waitFor(() => expect(settled).toHaveLength(1), { timeout: 10_000 });
  expect(settled[0]).toMatchObject({ message: expect.stringContaining("ENOENT") });
});
