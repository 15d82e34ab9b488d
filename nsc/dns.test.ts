import { create } from "@bufbuild/protobuf";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import * as z from "zod";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { systemClock } from "../sdk/clock.ts";
import { createLogger } from "../sdk/log.ts";
import type { Manager } from "../sdk/manager-client.ts";
import { queryFor, read } from "../test/support/dns.ts";
import { eventually } from "../test/support/netns.ts";
import { followDnsContexts, openNames } from "./dns.ts";
import { firstRequest } from "./request.ts";

const ORIGINAL = "nameserver 192.0.2.1\n";
const Line = z.looseObject({ msg: z.string(), address: z.string().optional() });

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dns-"));
  path = join(folder, "resolv.conf");
  writeFileSync(path, ORIGINAL);
});
afterEach(() => rmSync(folder, { recursive: true }));

/** On any port but 53, which no file can name: what the file becomes is shown with real processes (test/e2e/names.test.ts). */
function open() {
  const lines: z.infer<typeof Line>[] = [];
  const log = createLogger("nsc", "INFO", { write: (line) => void lines.push(Line.parse(JSON.parse(line))) });
  const names = openNames({ host: "127.0.0.1", port: 0, path, clock: systemClock, log });
  const said = (words: string) => lines.filter(({ msg }) => msg.includes(words));
  const port = () => Number(said("names of wires are resolved").at(-1)?.address?.split(":")[1]);
  return { names, said, port, listening: () => eventually("it listens", () => !Number.isNaN(port())) };
}

function offering(id: string, ...dnsServerIps: string[]): Connection {
  const configs = [{ dnsServerIps, searchDomains: ["my.service"] }];
  return create(ConnectionSchema, { id, context: { dnsContext: { configs } } });
}

async function answers(port: number): Promise<boolean> {
  const socket = createSocket("udp4");
  try {
    socket.connect(port, "127.0.0.1");
    await once(socket, "connect");
    const query = queryFor("x");
    query.writeUInt16BE(0, 4); // no question: FORMERR at once
    socket.send(query);
    const [reply]: Buffer[] = await once(socket, "message", { signal: AbortSignal.timeout(5000) });
    return reply !== undefined && read(reply).rcode === "FORMERR";
  } catch {
    return false;
  } finally {
    socket.close();
  }
}

test("the resolver listens while a wire offers name servers, and not before or after", async () => {
  const { names, port, listening } = open();
  await using closing = names;
  void closing;
  expect(port()).toBeNaN();
  names.update(offering("0", "172.16.1.2"));
  names.update(offering("1", "172.16.1.3"));
  await listening();
  names.remove("0");
  expect(await answers(port())).toBe(true);
  names.remove("1");
  await eventually("it does not answer", async () => !(await answers(port())));
  expect(readFileSync(path, "utf8")).toBe(ORIGINAL);
});

test("the end closes it", async () => {
  const { names, port, listening } = open();
  names.update(offering("0", "172.16.1.2"));
  await listening();
  await names[Symbol.asyncDispose]();
  expect(await answers(port())).toBe(false);
});

test("an offer that is refused as a whole starts nothing, and is complained about once, not with each refresh", async () => {
  const { names, said, port } = open();
  await using closing = names;
  void closing;
  for (let refreshes = 0; refreshes < 3; refreshes++) names.update(offering("0", "127.0.0.1"));
  expect(said("not used")).toHaveLength(1);
  names.update(offering("0", "::1"));
  expect(said("not used")).toHaveLength(2);
  expect(port()).toBeNaN();
});

test("a request brings no name servers, its answer's count, and a Close ends them", async () => {
  const calls: string[] = [];
  const asked: NetworkServiceRequest[] = [];
  const manager: Manager = {
    request(request) {
      asked.push(request);
      return Promise.resolve(offering("0", "172.16.1.2"));
    },
    close: () => Promise.resolve(),
    monitor: () => {
      throw new Error("not used");
    },
  };
  const following = followDnsContexts(manager, {
    update: ({ id }) => void calls.push(`update ${id}`),
    remove: (id) => void calls.push(`remove ${id}`),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  const { signal } = new AbortController();
  const netnsUrl = "inode://4/4026531840";
  const request = firstRequest({
    id: "0",
    name: "nsc",
    networkService: "named",
    labels: {},
    interfaceName: undefined,
    netnsUrl,
  });
  request.connection = { ...offering("0", "172.16.9.9") };
  const answer = await following.request(request, signal);
  expect(asked[0]?.connection?.context?.dnsContext?.configs).toEqual([]);
  expect(request.connection.context?.dnsContext?.configs).toHaveLength(1); // the caller's stays as it was
  await following.close(answer, signal);
  expect(calls).toEqual(["update 0", "remove 0"]);
});
