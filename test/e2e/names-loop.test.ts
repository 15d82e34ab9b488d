/**
 * Two resolvers that ask each other over a wire: the client's asks the endpoint's end of it, where another client of the mesh has
 * its own, whose server is the client's end (docs/protocol.md, "Names").
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { answerTo, askedOf, queryFor, read } from "../support/dns.ts";
import { bindUdp } from "../support/udp.ts";
import { useMesh } from "../support/use-mesh.ts";

const [CLIENT, ENDPOINT] = ["172.16.1.1", "172.16.1.0"];
/** The client's own server, for names that are not of the loop. */
const OWN_SERVER = "127.0.0.2";
/** After that a question ends whoever answers; a loop that is seen ends at once. */
const ANSWER_WITHIN_MS = 5000;

const offer = (server: string) =>
  JSON.stringify([{ dns_server_ips: [server], search_domains: ["loop.example"] }]);
const folder = mkdtempSync(join(tmpdir(), "names-loop-"));
const resolver = (name: string, address: string, text: string) => {
  const file = join(folder, name);
  writeFileSync(file, text);
  return {
    NSM_RESOLV_CONF: file,
    NSM_LOCAL_DNS_SERVER_ENABLED: "true",
    NSM_LOCAL_DNS_SERVER_ADDRESS: `${address}:53`,
  };
};
const clientResolver = resolver("client.conf", CLIENT, `nameserver ${OWN_SERVER}\n`);
const mirrorResolver = resolver("mirror.conf", ENDPOINT, "# nobody\n");

afterAll(() => rmSync(folder, { recursive: true }));
const mesh = useMesh({
  nodes: 1,
  endpoints: [
    {
      name: "there",
      service: "there",
      prefixes: "172.16.1.0/24",
      env: { NSM_DNS_CONFIGS: offer(ENDPOINT) },
    },
    { name: "back", service: "back", prefixes: "172.16.2.0/24", env: { NSM_DNS_CONFIGS: offer(CLIENT) } },
  ],
  clients: [
    {
      name: "client",
      services: "kernel://there/nsm-1",
      env: clientResolver,
    },
    {
      name: "mirror",
      beside: "there",
      services: "kernel://back/nsm-2",
      env: mirrorResolver,
    },
  ],
});
const sockets = new DisposableStack();
afterAll(() => sockets.dispose());
beforeAll(async () => {
  for (const name of ["client", "mirror"])
    await mesh.daemon(name).waitFor("names of wires are resolved", 20_000);
  const own = sockets.adopt(bindUdp(pod("client"), OWN_SERVER, 53), (socket) => socket.close());
  own.on("message", (query, from) => {
    const says = askedOf(query).name === "own.example" ? { addresses: ["192.0.2.1"] } : "nxDomain";
    own.send(answerTo(query, says), from.port, from.address);
  });
  pod("client").exec("nft", "add table inet count");
  for (const hook of ["input", "output"]) {
    pod("client").exec("nft", `add chain inet count ${hook} { type filter hook ${hook} priority 0; }`);
    const device = hook === "input" ? "iifname" : "oifname";
    pod("client").exec("nft", `add rule inet count ${hook} ${device} nsm-1 udp dport 53 counter`);
  }
});

const pod = (name: string) => mesh.namespace(`pod-${name}`);
/** Questions that have passed the wire, from the client and to it. */
const questions = () =>
  Array.from(
    pod("client")
      .exec("nft", "list table inet count")
      .matchAll(/packets (\d+)/g),
    ([, count]) => Number(count),
  );

/** Asks the client's resolver, as a program of its pod does. */
async function ask(name: string, id = 7) {
  using stack = new DisposableStack();
  const socket = stack.adopt(bindUdp(pod("client"), CLIENT), (each) => each.close());
  const startedMs = performance.now();
  const answer = new Promise<Buffer>((resolve) => socket.once("message", resolve));
  socket.send(queryFor(name, { id }), 53, CLIENT);
  const { rcode, records } = read(await answer);
  return { rcode, records, tookMs: performance.now() - startedMs };
}

test("a name that two resolvers ask each other for is SERVFAIL, long before anybody's patience ends", async () => {
  const { rcode, tookMs } = await ask("x.loop.example");
  expect(rcode).toBe("SERVFAIL");
  expect(tookMs).toBeLessThan(ANSWER_WITHIN_MS / 2);
});

test("the loop is no storm: a name, and it with the search domain behind it, pass the wire once in each direction", async () => {
  const earlier = questions();
  const names = Array.from({ length: 50 }, (_, i) => `n${i}.loop.example`);
  const answers = await Promise.all(names.map((name, i) => ask(name, i + 1)));
  expect(new Set(answers.map(({ rcode }) => rcode))).toEqual(new Set(["SERVFAIL"]));
  for (const [i, count] of questions().entries()) {
    const asked = count - (earlier[i] ?? 0);
    expect(asked).toBeGreaterThanOrEqual(names.length);
    expect(asked).toBeLessThanOrEqual(2 * 2 * names.length); // each may be sent again
  }
});

test("other names are found all the while", async () => {
  const looping = Array.from({ length: 20 }, (_, i) => ask(`more-${i}.loop.example`));
  expect(await ask("own.example")).toMatchObject({ rcode: "NOERROR", records: ["own.example 192.0.2.1 60"] });
  await Promise.all(looping);
});
