/** The mesh of a scenario: ends with its test. */
import { onTestFinished } from "vitest";
import { startInProcess } from "../../support/in-process.ts";
import type { InProcessMesh } from "../../support/in-process.ts";

/** With a network service `service` of payload IP. */
export async function startScenario(): Promise<InProcessMesh> {
  const mesh = await startInProcess();
  onTestFinished(() => mesh[Symbol.asyncDispose]());
  await mesh.service({ name: "service", payload: "IP" });
  return mesh;
}
