import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { silentLogger } from "../sdk/log.ts";
import { readConfig } from "../sdk/config.ts";
import { verifyJwtSvid } from "../sdk/spiffe/jwt.ts";
import type { X509Source } from "../sdk/spiffe/source.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import { fetchJwtSvid, openJwtBundles, openX509Source } from "../sdk/spiffe/workload-api.ts";
import { table } from "./config.ts";
import { openIdentity } from "./main.ts";

const isRoot = process.getuid?.() === 0;
const own = { uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };
const run = promisify(execFile);
const printer = join(import.meta.dirname, "../test/support/print-identity.ts");

let directory: string;
let socket: string;
let stack: AsyncDisposableStack;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "identity-"));
  chmodSync(directory, 0o755);
  socket = join(directory, "s");
  lines = [];
  stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true }));
});
afterEach(() => stack.disposeAsync());

const id = (name: string) => `spiffe://a.test/${name}`;

const noWarning = (line: string) => expect.fail(line);

/** What the authority logged, one JSON line each. */
let lines: string[];
const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
const logs = (text: RegExp) =>
  vi.waitFor(() => expect(lines).toContainEqual(expect.stringMatching(text)), { timeout: 5000 });

/** Replaces the file as an editor does. */
function register(...registrations: readonly (readonly [name: string, match: object])[]): void {
  const list = registrations.map(([name, match]) => ({ id: id(name), match }));
  writeFileSync(join(directory, "draft"), JSON.stringify({ registrations: list }));
  renameSync(join(directory, "draft"), join(directory, "registrations.yaml"));
}

const environment = () => ({
  NSM_IDENTITY_TRUST_DOMAIN: "a.test",
  NSM_IDENTITY_LISTEN_ON: `unix://${socket}`,
  NSM_IDENTITY_STATE_DIR: join(directory, "state"),
  NSM_IDENTITY_REGISTRATIONS: join(directory, "registrations.yaml"),
});

function start(env: Readonly<Record<string, string>> = {}): Promise<AsyncDisposable> {
  return openIdentity(readConfig(table, { ...environment(), ...env }, noWarning), log);
}

const client = () => ({
  socket: `unix://${socket}`,
  log: silentLogger,
  signal: new AbortController().signal,
  waitMs: 5000,
});

async function changed(source: X509Source, fromGeneration: number): Promise<void> {
  await vi.waitFor(() => expect(source.current().generation).toBeGreaterThan(fromGeneration), {
    timeout: 5000,
  });
}

describe("a workload", () => {
  test("gets an SVID that verifies, and its bundle", async () => {
    register(["me", own]);
    stack.use(await start());
    const source = stack.use(await openX509Source(client()));
    const { svid, bundles } = source.current();
    const verified = verifySvid(
      svid.chain.map(({ raw }) => raw),
      bundles,
      Date.now(),
    );
    expect(verified.id).toBe(id("me"));
    expect(svid.notAfterMs - Date.now()).toBeGreaterThan(3_590_000);
    expect(verified.leaf.subjectAltName).toBe(`URI:${id("me")}`);
  });

  test("gets a new one at half of its life, without a gap", async () => {
    register(["me", own]);
    stack.use(await start({ NSM_IDENTITY_SVID_LIFETIME: "1s" }));
    const source = stack.use(await openX509Source(client()));
    for (let round = 1; round <= 3; round++) {
      const { svid, generation } = source.current();
      expect(svid.notAfterMs).toBeGreaterThan(Date.now());
      await changed(source, generation);
      expect(source.current().svid.privateKeyPem).not.toBe(svid.privateKeyPem);
    }
  });

  test("keeps its identity while the authority restarts, which keeps the trust", async () => {
    register(["me", own]);
    const first = await start();
    const source = stack.use(await openX509Source(client()));
    const before = source.current();
    await first[Symbol.asyncDispose]();
    expect(existsSync(socket)).toBe(false);
    expect(source.current()).toBe(before);
    stack.use(await start());
    await changed(source, 1);
    expect(source.current().bundles).toBe(before.bundles);
  });

  test("follows the registrations: another id, none, and one again; a bad file changes nothing", async () => {
    register(["one", own]);
    stack.use(await start());
    const source = stack.use(await openX509Source(client()));
    const becomes = (name: string) =>
      vi.waitFor(() => expect(source.current().svid.id).toBe(id(name)), { timeout: 5000 });
    register(["two", own]);
    await becomes("two");
    writeFileSync(join(directory, "registrations.yaml"), "registrations: [");
    await logs(/"level":50.*registrations\.yaml.*stay in force/);
    register(["three", own], ["three-again", { ...own, executable: "/bin/sh" }]);
    await logs(/"level":50.*could fit one process.*stay in force/);
    expect(await identityOf([])).toEqual({ id: id("two") });
    expect(source.current().svid.id).toBe(id("two"));
    register(["other", { ...own, gid: 54321 }]);
    await vi.waitFor(() => expect(() => source.current()).toThrow(/withdrawn.*no registration fits/), {
      timeout: 5000,
    });
    register(["four", own]);
    await becomes("four");
  });

  test("gets JWT-SVIDs that verify by the bundles, for its own id only", async () => {
    register(["me", own]);
    stack.use(await start());
    const bundles = stack.use(await openJwtBundles(client()));
    const { id: subject, token } = await fetchJwtSvid(client(), ["you"]);
    expect(subject).toBe(id("me"));
    const verified = await verifyJwtSvid(token, bundles.current(), "you", Date.now());
    expect(verified).toMatchObject({ id: id("me"), claims: { aud: ["you"] } });
    await expect(verifyJwtSvid(token, bundles.current(), "me", Date.now())).rejects.toMatchObject({
      reason: "jwt-wrong-audience",
    });
    await expect(fetchJwtSvid(client(), [""])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

/** What a process of its own gets. */
async function identityOf(command: readonly string[], options: object = {}): Promise<unknown> {
  const [file, ...args] = [...command, process.execPath, printer, socket];
  const { stdout } = await run(file ?? process.execPath, args, options);
  return JSON.parse(stdout);
}

describe.skipIf(!isRoot)("attestation (needs root)", () => {
  test("tells processes apart by group, whatever else they say", async () => {
    register(["a", { uid: 0, gid: 1001 }], ["b", { uid: 0, gid: 1002 }], ["c", { uid: 1003 }]);
    stack.use(await start());
    expect(await identityOf([], { gid: 1001 })).toEqual({ id: id("a") });
    expect(await identityOf([], { gid: 1002 })).toEqual({ id: id("b") });
    expect(await identityOf([], { uid: 1003, gid: 1001 })).toEqual({ id: id("c") });
    const lies = { gid: 1004, argv0: "gid=1001", env: { ...process.env, gid: "1001" }, cwd: "/" };
    expect(await identityOf([], lies)).toEqual({
      code: "PERMISSION_DENIED",
      message: expect.stringMatching(
        /no registration fits process \d+: uid 0, gid 1004, netns \d+, cgroup ".*", executable ".*node.*registrations\.yaml.*uid: 0, gid: 1004/,
      ),
    });
  });

  test("tells processes apart by network namespace, given by number or by path", async () => {
    const holders = [1, 2].map(() => spawn("unshare", ["--net", "sleep", "60"]));
    stack.defer(() => holders.forEach((holder) => holder.kill()));
    const host = statSync("/proc/self/ns/net").ino;
    const paths = holders.map(({ pid }) => `/proc/${pid}/ns/net`);
    await vi.waitFor(() => paths.forEach((path) => expect(statSync(path).ino).not.toBe(host)), {
      timeout: 5000,
    });
    const [first = "", second = ""] = paths;
    // A path and a number could be the same namespace, so they exclude each other by their groups.
    register(
      ["by-path", { netns: first, gid: 0 }],
      ["by-number", { netns: statSync(second).ino, gid: 1001 }],
      ["host", { netns: host, gid: 1002 }],
    );
    stack.use(await start());
    expect(await identityOf(["nsenter", `--net=${first}`])).toEqual({ id: id("by-path") });
    expect(
      await identityOf(["nsenter", `--net=${second}`, "setpriv", "--regid=1001", "--clear-groups"]),
    ).toEqual({
      id: id("by-number"),
    });
    expect(await identityOf([], { gid: 1002 })).toEqual({ id: id("host") });
    expect(await identityOf(["nsenter", `--net=${second}`])).toMatchObject({ code: "PERMISSION_DENIED" });
    expect(await identityOf([])).toMatchObject({ code: "PERMISSION_DENIED" });
  });

  test("tells processes apart by the file that they execute, not by its name", async () => {
    register(
      ["shell", { gid: 0, executable: "/bin/sh" }],
      ["node", { gid: 0, executable: process.execPath }],
    );
    stack.use(await start());
    expect(await identityOf([], { argv0: "/bin/sh" })).toEqual({ id: id("node") });
  });

  test("refuses when two registrations turn out to mean one file", async () => {
    const alias = `/proc/self/root${process.execPath}`;
    register(["one", { gid: 0, executable: alias }], ["two", { gid: 0, executable: process.execPath }]);
    stack.use(await start());
    expect(await identityOf([])).toMatchObject({
      code: "PERMISSION_DENIED",
      message: expect.stringContaining("both fit"),
    });
  });

  test("refuses to take over another user's socket or file", async () => {
    register(["me", own]);
    const listener = createServer().listen(socket);
    await once(listener, "listening");
    await expect(start()).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    chownSync(socket, 1003, 1003);
    await expect(start()).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      message: expect.stringContaining(socket),
    });
    listener.close();
    await once(listener, "close");
    writeFileSync(socket, "");
    await expect(start()).rejects.toThrow(socket);
    expect(readFileSync(socket, "utf8")).toBe("");
  });

  test("refuses registrations that others can write", async () => {
    register(["me", own]);
    const path = join(directory, "registrations.yaml");
    chmodSync(path, 0o666);
    await expect(start()).rejects.toMatchObject({ reason: "unsafe-registrations" });
    chmodSync(path, 0o644);
    chownSync(path, 1003, 0);
    await expect(start()).rejects.toMatchObject({ reason: "unsafe-registrations" });
  });
});

describe("starting", () => {
  test("without registrations says where they belong and what they look like", async () => {
    await expect(start()).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringMatching(/registrations\.yaml.*NSM_IDENTITY_REGISTRATIONS.*for example/),
    });
    expect(readdirSync(directory)).toEqual([]);
  });

  test("with registrations that conflict names both", async () => {
    register(["one", { uid: 0 }], ["two", { gid: 0 }]);
    await expect(start()).rejects.toThrow(/a\.test\/one.*a\.test\/two/);
  });

  test("keeps its keys to itself, and refuses them when others could read them", async () => {
    register(["me", own]);
    await (await start())[Symbol.asyncDispose]();
    const state = join(directory, "state");
    const file = join(state, "authority.json");
    expect(readdirSync(state)).toEqual(["authority.json"]);
    expect([state, file].map((path) => statSync(path).mode & 0o777)).toEqual([0o700, 0o600]);
    chmodSync(file, 0o640);
    await expect(start()).rejects.toThrow(`chmod 600 ${file}`);
    chmodSync(file, 0o600);
    chmodSync(state, 0o755);
    await expect(start()).rejects.toThrow(`chmod 700 ${state}`);
  });

  test("for another trust domain than that of its keys, or with damaged keys, is refused", async () => {
    register(["me", own]);
    await (await start())[Symbol.asyncDispose]();
    const file = join(directory, "state/authority.json");
    const content = readFileSync(file, "utf8");
    writeFileSync(file, content.replace("a.test", "b.test"));
    await expect(start()).rejects.toMatchObject({ reason: "other-trust-domain" });
    writeFileSync(file, content.slice(0, 200));
    await expect(start()).rejects.toThrow(/damaged/);
    await expect(start()).rejects.not.toThrow(/PRIVATE/);
  });

  test("replaces the socket that a killed process left, and removes its own", async () => {
    register(["me", own]);
    const script = `require("net").createServer().listen(${JSON.stringify(socket)}, () => console.log())`;
    const child = spawn(process.execPath, ["-e", script]);
    await once(child.stdout, "data");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(statSync(socket).isSocket()).toBe(true);
    const identity = await start();
    expect(statSync(socket).mode & 0o777).toBe(0o666);
    await stack.use(await openX509Source(client()))[Symbol.asyncDispose]();
    await identity[Symbol.asyncDispose]();
    expect(readdirSync(directory).sort()).toEqual(["registrations.yaml", "state"]);
  });

  test("as a process serves until SIGTERM, then leaves only its keys", async () => {
    register(["me", own]);
    const nsm = join(import.meta.dirname, "../bin/nsm.js");
    const child = spawn(process.execPath, [nsm, "identity"], { env: { ...process.env, ...environment() } });
    stack.defer(() => void child.kill("SIGKILL"));
    const exit = once(child, "exit");
    await stack.use(await openX509Source({ ...client(), waitMs: 15_000 }))[Symbol.asyncDispose]();
    child.kill("SIGTERM");
    expect(await exit).toEqual([0, null]);
    expect(readdirSync(directory).sort()).toEqual(["registrations.yaml", "state"]);
  });

  test("with faulty variables names each", () => {
    const env = {
      NSM_IDENTITY_TRUST_DOMAIN: "A.test",
      NSM_IDENTITY_LISTEN_ON: "tcp://:80",
      NSM_IDENTITY_SVID_LIFETIME: "1ms",
    };
    expect(() => readConfig(table, env, noWarning)).toThrow(/TRUST_DOMAIN[^]*LISTEN_ON[^]*SVID_LIFETIME/);
  });
});
