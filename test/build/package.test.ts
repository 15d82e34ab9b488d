import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { isRoot } from "../support/netns.ts";
import { insideSandbox } from "../support/sandbox.ts";

const root = dirname(dirname(import.meta.dirname));
/** The machine's own Node and npm, as a user's shell finds them: not the Node 24 of this checkout. */
const PATH = (process.env["PATH"] ?? "")
  .split(":")
  .filter((folder) => !folder.includes("node_modules"))
  .join(":");

let scratch: string;
let installed: string;

function run(command: string, args: readonly string[], cwd = root): string {
  return execFileSync(command, args, {
    cwd,
    encoding: "utf8",
    env: { ...process.env, PATH },
    stdio: ["ignore", "pipe", "inherit"],
  });
}

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "nsm-package-"));
  const quiet = ["--silent", "--no-audit", "--no-fund"];
  run("npm", ["pack", ...quiet, "--pack-destination", scratch]);
  const [tarball = ""] = readdirSync(scratch);
  installed = join(scratch, "prefix");
  run("npm", ["install", ...quiet, "--global", "--prefix", installed, join(scratch, tarball)], scratch);
}, 240_000);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const DOCUMENTS = ["ARCHITECTURE.md", "CONTRIBUTING.md", "DECISIONS.md", "README.md", "docs"];
const nsm = () => join(installed, "bin/nsm");
const packageFolder = () => join(installed, "lib/node_modules/nsm-ts");

test("the package holds plain JavaScript, what the README links to, and no sources", () => {
  const readme = readFileSync(join(packageFolder(), "README.md"), "utf8");
  const documents = new Set([...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, name = ""]) => name));
  for (const name of documents) expect(existsSync(join(packageFolder(), name)), name).toBe(true);
  expect(readdirSync(packageFolder()).sort()).toEqual(
    [...DOCUMENTS, "LICENSE", "bin", "dist", "node_modules", "package.json"].sort(),
  );
  const typescript = readdirSync(join(packageFolder(), "dist"), { recursive: true, encoding: "utf8" });
  expect(typescript.filter((name) => name.endsWith(".ts"))).toEqual([]);
});

test("of libraries it holds what is used: no messages in forty languages", () => {
  const dist = join(packageFolder(), "dist");
  const files = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".js"),
  );
  const dutch = files.filter((name) => readFileSync(join(dist, name), "utf8").includes("Ongeldige invoer"));
  expect(dutch).toEqual([]);
});

test("the installed command runs from any folder, under whatever Node the machine has, on Node 24", () => {
  const { version } = z
    .object({ version: z.string() })
    .parse(JSON.parse(readFileSync(join(root, "package.json"), "utf8")));
  expect(run(nsm(), ["version"], "/")).toMatch(new RegExp(`^nsm ${version} \\(Node (2[4-9]|[3-9]\\d)\\.`));
});

test("it starts through a link of its own, too", () => {
  const link = join(scratch, "linked");
  symlinkSync(nsm(), link);
  expect(run(link, ["version"], "/")).toContain("nsm ");
});

test.for(["nsmgr", "forwarder", "registry", "identity", "nsc", "nse"])(
  "nsm %s --help lists its environment",
  (role) => {
    const help = run(nsm(), [role, "--help"]);
    expect(help).toContain(`Usage: nsm ${role}`);
    expect(help).toContain("  NSM_LOG_LEVEL  (");
  },
);

test("a daemon is one process: the Node that started it became the one that runs it", async () => {
  const child = spawn(nsm(), ["registry"], {
    env: {
      PATH,
      SPIFFE_ENDPOINT_SOCKET: `unix://${scratch}/nobody.sock`,
      NSM_LISTEN_ON: "tcp://127.0.0.1:0",
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stderr, "data"); // it waits for its identity
  const executable = readlinkSync(`/proc/${child.pid}/exe`);
  expect(execFileSync(executable, ["--version"], { encoding: "utf8" })).toMatch(/^v(2[4-9]|[3-9]\d)\./);
  const threads = readdirSync(`/proc/${child.pid}/task`);
  expect(threads.map((id) => readFileSync(`/proc/${child.pid}/task/${id}/children`, "utf8")).join("")).toBe(
    "",
  );
  child.kill("SIGTERM");
  await once(child, "exit");
  expect(child.exitCode).toBe(0);
});

describe("as root", () => {
  test.runIf(isRoot)("the installed package runs the demo", () => {
    const [command = "", ...args] = insideSandbox([nsm(), "demo", "--output", "json"]);
    const document: unknown = JSON.parse(run(command, args, "/"));
    expect(document).toMatchObject({ unavailable: [], removed: true });
    const { wires } = z.object({ wires: z.array(z.object({ client: z.string() })) }).parse(document);
    const clients = "client client client web-client edge-client chain-client heal-client bank-client";
    expect(wires.map(({ client }) => client).join(" ")).toBe(clients);
  });
});

test("the compile cache stays in the package", () => {
  expect(existsSync(join(packageFolder(), "node_modules/.cache/nsm"))).toBe(true);
});
