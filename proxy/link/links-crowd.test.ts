/** A stranger who holds as many connections of a proxy's port as it lets him, while others link their domains through it. */
import { connect as connectSocket } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { until } from "../../test/support/grpc.ts";
import { joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";

const HELD = 100;

/** What a stranger does with a connection, and never finishes. */
const habits: Readonly<Record<string, (socket: Socket) => void>> = {
  "says nothing": () => undefined,
  "begins a handshake": (socket) => void socket.write(Buffer.from([0x16, 3, 1, 2, 0])),
  "says nothing after the handshake": (socket) => overTls(socket, ""),
  "begins a question": (socket) => overTls(socket, "GET /bundle HTTP/1.1\r\nhost: "),
  "begins a body": (socket) =>
    overTls(socket, "POST /join HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{"),
};

function overTls(socket: Socket, text: string): void {
  const tls = connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] });
  tls.on("error", () => socket.destroy());
  tls.once("secureConnect", () => tls.write(text));
}

/** Holds so many connections from that address, each opened anew when it is closed; how many there were so far. */
function crowd(port: number, localAddress: string, habit: (socket: Socket) => void): () => number {
  const open = new Set<Socket>();
  let opened = 0;
  let isOver = false;
  const hold = () => {
    if (isOver) return;
    opened++;
    const socket = connectSocket({ port, host: "127.0.0.1", localAddress });
    open.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      open.delete(socket);
      setTimeout(hold, 1000).unref();
    });
    habit(socket);
    socket.resume();
  };
  for (let i = 0; i < HELD; i++) hold();
  onTestFinished(() => {
    isOver = true;
    for (const socket of open) socket.destroy();
  });
  return () => opened;
}

test.for(Object.keys(habits))(
  "a stranger who holds %j on a hundred connections keeps nobody from joining",
  { timeout: 60_000 },
  async (habit) => {
    const [east, west] = [await openSide("east"), await openSide("west")];
    onTestFinished(async () => {
      for (const side of [east, west]) await side[Symbol.asyncDispose]();
    });
    const opened = crowd(Number(east.url.split(":").at(-1)), "127.0.0.2", habits[habit] ?? (() => undefined));
    await until("some were sent away", () => opened() > HELD);
    await joinWith(west, await tokenOf(east));
    await until("the link is up", () => east.links.hub.linkedDomains()[0] === "west");
    expect(west.links.hub.linkedDomains()).toEqual(["east"]);
  },
);
