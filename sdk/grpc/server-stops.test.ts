import { once } from "node:events";
import { connect } from "node:tls";
import { expect, test } from "vitest";
import { NetworkService } from "../../api/gen/networkservice_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import { echo } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { systemClock } from "../clock.ts";
import { silentLogger as log } from "../log.ts";
import { verifySvid as verify } from "../spiffe/verify.ts";
import { openServer } from "./server.ts";

/** Of HTTP/2 (RFC 9113, 3.4), and an empty SETTINGS frame. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");

test("a server that stops does not wait for a peer without calls that hears nothing", async () => {
  const authority = await makeAuthority("example.org");
  await using source = await makeSource(authority, "/server");
  /** Times that have run out, of those that a server waits for its sessions. */
  const over: number[] = [];
  const clock = {
    ...systemClock,
    timer: (ms: number, run: () => void) =>
      systemClock.timer(ms, () => {
        over.push(ms);
        run();
      }),
  };
  const server = await openServer({ source, verify, log, clock, listen: ["tcp://127.0.0.1:0"] }, (add) =>
    add(NetworkService, echo),
  );
  await using client = await makeSource(authority, "/client");
  const { svid } = client.current();
  const socket = connect({
    port: Number(new URL(server.addresses[0] ?? "").port),
    host: "127.0.0.1",
    key: svid.privateKeyPem,
    cert: svid.chainPem,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
  });
  socket.on("error", () => undefined);
  try {
    await once(socket, "secureConnect");
    socket.write(PREFACE);
    await once(socket, "data"); // the session is there
    socket.pause();
    over.length = 0;
    await server[Symbol.asyncDispose]();
    expect(over).toEqual([100]);
  } finally {
    socket.destroy();
  }
});
