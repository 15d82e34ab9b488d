/** Tunnels: who comes through them, and that nobody else does. */
import { connect as connectSocket } from "node:net";
import { connect as connectTls } from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { makeSource } from "../../test/support/identity.ts";
import { failureOf, until } from "../../test/support/grpc.ts";
import { joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";
import type { Side } from "../../test/support/link-sides.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import { TUNNEL } from "./tunnels.ts";

async function tunnelled(): Promise<readonly [Side, Side]> {
  const [east, west] = [await openSide("east"), await openSide("west", { addresses: () => [] })];
  onTestFinished(async () => {
    await west[Symbol.asyncDispose]();
    await east[Symbol.asyncDispose]();
  });
  await joinWith(west, await tokenOf(east));
  await until("the tunnel is there", () => wayOf(east) === "tunnel");
  return [east, west];
}

const wayOf = ({ links }: Side) => links.hub.links().map(({ id }) => links.hub.live(id).way?.kind)[0];
const port = ({ url }: Side) => Number(url.split(":").at(-1));

/** Resolves when the other side has closed; what it said before. */
function say(side: Side, { svid }: X509Snapshot, text: string): Promise<string> {
  return new Promise((resolve) => {
    let heard = "";
    const socket = connectTls({
      port: port(side),
      host: "127.0.0.1",
      key: svid.privateKeyPem,
      cert: svid.chainPem,
      ALPNProtocols: [TUNNEL],
      rejectUnauthorized: false,
    });
    socket.on("secureConnect", () => socket.write(text));
    socket.on("data", (data: Buffer) => (heard += data.toString("latin1")));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(heard));
  });
}

test("a ticket that nobody gave opens nothing, nor does half of one", async () => {
  const [east, west] = await tunnelled();
  expect(await say(east, west.source.current(), `${"0".repeat(32)}hello`)).toBe("");
  expect(await say(east, west.source.current(), "0000")).toBe("");
});

test("nobody but the linked proxy opens tunnels", async () => {
  const [east, west] = await tunnelled();
  const other = await makeSource(west.authority, "/workload");
  expect(await say(east, other.current(), "0".repeat(32))).toBe("");
  const own = await makeSource(east.authority, "/workload");
  expect(await say(east, own.current(), "0".repeat(32))).toBe("");
});

test("while the other side is away, whoever comes to its socket is sent away, and the link is up again after it", async () => {
  const [east, west] = await tunnelled();
  await west.stop();
  await until("east has seen it", () => wayOf(east) === undefined);
  const socket = connectSocket(`${east.directory}/west.sock`);
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
  expect(await failureOf(east.links.pool.connect({ url: "link://west" }))).toMatchObject({
    reason: "domain-silent",
  });
  const back = await west.restart();
  onTestFinished(() => back[Symbol.asyncDispose]());
  await until("the tunnel is there again", () => wayOf(east) === "tunnel");
  const { peerId } = await east.links.pool.connect({ url: "link://west" });
  expect(peerId).toBe("spiffe://west.nsm/proxy");
});
