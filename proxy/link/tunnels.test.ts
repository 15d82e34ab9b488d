/** Tunnels: who comes through them, and that nobody else does. */
import { pbkdf2 } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { makeSource } from "../../test/support/identity.ts";
import { failureOf, until } from "../../test/support/grpc.ts";
import { joinWith, openSide, tokenOf } from "../../test/support/link-sides.ts";
import type { Side } from "../../test/support/link-sides.ts";
import { systemClock } from "../../sdk/clock.ts";
import { silentLogger } from "../../sdk/log.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import type { LinkRecord } from "./state.ts";
import { TUNNEL, createTunnelDoors, doorPath } from "./tunnels.ts";

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
  const socket = connectSocket(doorPath(east.directory, "west"));
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

test("whoever comes while a door is being opened gets a ticket, and nothing is left of a door that is closed meanwhile", async () => {
  const directory = await mkdtemp(join(tmpdir(), "nsm-doors-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  await using doors = createTunnelDoors(directory, systemClock, silentLogger);
  await using slow = slowFiles();
  void slow;
  for (let round = 0; round < 3; round++) {
    const link = recordOf(`west${round}`);
    const path = doorPath(directory, link.domain);
    const tickets: string[] = [];
    const opening = doors.open(link, (ticket) => tickets.push(ticket));
    while (!existsSync(path)) await new Promise((resolve) => setImmediate(resolve));
    const socket = connectSocket(path);
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined).resume();
    await until("there is a ticket", () => tickets.length === 1);
    await Promise.all([opening, doors.close(link)]);
    await closed;
    expect(existsSync(path)).toBe(false);
  }
});

test("a state directory in which no socket can be made is refused, with what to do", () => {
  const open = (length: number) => () =>
    createTunnelDoors(`/${"x".repeat(length - 1)}`, systemClock, silentLogger);
  expect(open(85)).not.toThrow();
  expect(open(86)).toThrow(
    /has 108 bytes, expected at most 107: name a shorter directory \(NSM_PROXY_STATE_DIR\)/,
  );
});

/** Until disposed each operation on files waits some milliseconds for a thread. */
function slowFiles(): AsyncDisposable {
  const work = promisify(pbkdf2);
  const over = new AbortController();
  const keepBusy = async () => {
    while (!over.signal.aborted) await work("x", "y", 10_000, 32, "sha512");
  };
  const threads = Array.from({ length: 8 }, keepBusy);
  return {
    async [Symbol.asyncDispose]() {
      over.abort();
      await Promise.all(threads);
    },
  };
}

function recordOf(domain: string): LinkRecord {
  return {
    id: `link-of-${domain}`,
    domain,
    trustDomain: `${domain}.nsm`,
    proxyId: `spiffe://${domain}.nsm/proxy`,
    addresses: [],
    dials: false,
    state: "linked",
    sinceMs: 0,
    bundle: "",
    gaveBundle: false,
  };
}
