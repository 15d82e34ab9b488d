/** The other process of the yardstick: answers every call with its own bytes. */
import { once } from "node:events";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { handleUnaryCall } from "@grpc/grpc-js";
import { ECHO_PATH } from "./yardstick.ts";
import type { EchoSettings } from "./yardstick.ts";

const [settings]: EchoSettings[] = await once(process, "message");
if (settings === undefined) throw new Error("no settings came");
const pair = {
  private_key: Buffer.from(settings.keyPem),
  cert_chain: Buffer.from(settings.certificatePem),
};
const same = (bytes: Buffer) => bytes;
const server = new Server();
const echo: handleUnaryCall<Buffer, Buffer> = (call, respond) => respond(null, call.request);
server.register(ECHO_PATH, echo, same, same, "unary");
server.bindAsync(
  "localhost:0",
  ServerCredentials.createSsl(Buffer.from(settings.rootPem), [pair], true),
  (error, port) => {
    if (error) throw error;
    process.send?.(port);
  },
);
process.once("disconnect", () => process.exit());
