/** The mesh of a scenario: ends with its test; and what clients ask it for. */
import { clone } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { onTestFinished } from "vitest";
import { ConnectionSchema, State } from "../../../api/gen/connection_pb.js";
import type { Connection } from "../../../api/gen/connection_pb.js";
import type { NetworkServiceRequestSchema } from "../../../api/gen/networkservice_pb.js";
import { netnsUrl } from "../../../sdk/netns-url.ts";
import { startInProcess } from "../../support/in-process.ts";
import type { InProcessMesh } from "../../support/in-process.ts";

/** What a client asks for whose wire is to be chosen anew. */
export function chosenAnew(connection: Connection): MessageInitShape<typeof NetworkServiceRequestSchema> {
  const again = clone(ConnectionSchema, connection);
  delete again.mechanism;
  again.networkServiceEndpointName = "";
  again.state = State.RESELECT_REQUESTED;
  const offer = { cls: "LOCAL", type: "KERNEL", parameters: { inodeURL: netnsUrl() } };
  return { connection: again, mechanismPreferences: [offer] };
}

/** With a network service `service` of payload IP. */
export async function startScenario(): Promise<InProcessMesh> {
  const mesh = await startInProcess();
  onTestFinished(() => mesh[Symbol.asyncDispose]());
  await mesh.service({ name: "service", payload: "IP" });
  return mesh;
}
