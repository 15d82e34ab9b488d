import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";

const PRELUDE = `
  import { runDaemon } from ${JSON.stringify(join(import.meta.dirname, "run-daemon.ts"))};
  import { NsmError } from ${JSON.stringify(join(import.meta.dirname, "../sdk/errors.ts"))};
  import { commonTable, text } from ${JSON.stringify(join(import.meta.dirname, "../sdk/config.ts"))};
  const table = { ...commonTable, name: text("NSM_NAME", undefined, "its name") };
  const run = async (start, more) =>
    process.exit(await runDaemon({ name: "trial", summary: "", about: "", table, start, ...more }, process.env));
`;

/** Runs a daemon whose \`start\` is the given source, as a process of its own. */
function trial(start: string, env: Record<string, string> = { NSM_NAME: "x" }): Trial {
  const child = spawn(process.execPath, ["--input-type=module", "-e", `${PRELUDE} await run(${start});`], {
    env,
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  return new Trial(child);
}

class Trial {
  #child: ChildProcess;
  output = "";

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on("data", (data: Buffer) => (this.output += data.toString()));
  }

  async says(words: string): Promise<void> {
    while (!this.output.includes(words)) await once(this.#child.stderr ?? this.#child, "data");
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async ended(): Promise<number | null> {
    await once(this.#child, "close");
    return this.#child.exitCode;
  }
}

const SERVES = `async (config, { log, signal }) => {
  log.info({ name: config.name }, "serving");
  signal.addEventListener("abort", () => log.info("aborted"));
  return { async [Symbol.asyncDispose]() { log.info("disposed"); } };
}`;

test("what was compiled for a daemon is kept while it runs, so that a killed one starts fast", async () => {
  const folder = mkdtempSync(join(tmpdir(), "compiled-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const daemon = trial(SERVES, { NSM_NAME: "x", NODE_COMPILE_CACHE: folder });
  await daemon.says("serving");
  const kept = () => readdirSync(folder, { recursive: true, withFileTypes: true }).filter((f) => f.isFile());
  await vi.waitFor(() => expect(kept().length).toBeGreaterThan(5), { timeout: 10_000 });
  daemon.kill("SIGKILL");
  await daemon.ended();
});

test.for(["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const)(
  "%s aborts, disposes and exits 0",
  async (signal) => {
    const daemon = trial(SERVES);
    await daemon.says("serving");
    daemon.kill(signal);
    expect(await daemon.ended()).toBe(0);
    expect(daemon.output.indexOf("aborted")).toBeLessThan(daemon.output.indexOf("disposed"));
  },
);

test("bad configuration prints every fault, starts nothing and exits 2", async () => {
  const daemon = trial(SERVES, { NSM_LOG_LEVEL: "loud" });
  expect(await daemon.ended()).toBe(2);
  expect(daemon.output).toContain("NSM_LOG_LEVEL=loud: expected TRACE, DEBUG");
  expect(daemon.output).toContain("NSM_NAME must be set: its name");
  expect(daemon.output).not.toContain("serving");
});

test("variables that do not go together start nothing, too, and exit 2", async () => {
  const refuses = `check(config) { throw new NsmError("INVALID_ARGUMENT", "bad", config.name + " needs more"); }`;
  const daemon = trial(`${SERVES}, { ${refuses} }`);
  expect(await daemon.ended()).toBe(2);
  expect(daemon.output).toContain("nsm trial: x needs more\nrun nsm trial --help for its environment");
  expect(daemon.output).not.toContain("serving");
});

test("an unknown variable is warned about in the log", async () => {
  const daemon = trial(SERVES, { NSM_NAME: "x", NSM_NAMES: "y" });
  await daemon.says("serving");
  expect(daemon.output).toContain("the nearest is NSM_NAME");
});

test("a daemon that cannot start says why once and exits 1", async () => {
  const daemon = trial(`async () => { throw new Error("no socket"); }`);
  expect(await daemon.ended()).toBe(1);
  expect(daemon.output.split("\n").filter((line) => line.includes('"msg":"daemon failed"'))).toHaveLength(1);
  expect(daemon.output).toContain("no socket");
});

test.for([
  ["the signal's reason", "signal.reason"],
  ["a cancellation of its own", `new NsmError("CANCELLED", "cancelled", "waiting was cancelled")`],
  ["an abort of Node's", `new DOMException("aborted", "AbortError")`],
])("a stop while starting exits 0 when the start fails with %s", async ([, reason]) => {
  const daemon = trial(`(config, { log, signal }) => new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(${reason}));
    log.info("starting");
  })`);
  await daemon.says("starting");
  daemon.kill("SIGTERM");
  expect(await daemon.ended()).toBe(0);
});

test("a daemon that fails while it stops exits 1", async () => {
  const daemon = trial(`async (config, { log }) => {
    log.info("serving");
    return { async [Symbol.asyncDispose]() { throw new Error("stuck device"); } };
  }`);
  await daemon.says("serving");
  daemon.kill("SIGTERM");
  expect(await daemon.ended()).toBe(1);
  expect(daemon.output).toContain("stuck device");
});

test.for([
  ["an uncaught error", `throw new Error("boom")`],
  ["an unhandled rejection", `void Promise.reject(new Error("boom"))`],
] as const)("%s is logged once and exits 1", async ([, fault]) => {
  const daemon = trial(
    `async () => { setImmediate(() => { ${fault}; }); return { async [Symbol.asyncDispose]() {} }; }`,
  );
  expect(await daemon.ended()).toBe(1);
  expect(daemon.output.split("\n").filter((line) => line.includes('"msg":"uncaught error"'))).toHaveLength(1);
});

test("SIGUSR1 logs everything until SIGUSR2, and opens no debugger", async () => {
  const daemon = trial(`async (config, { log }) => {
    setInterval(() => { log.trace("quiet"); log.info("loud"); }, 5);
    return { async [Symbol.asyncDispose]() {} };
  }`);
  await daemon.says("loud");
  expect(daemon.output).not.toContain("quiet");
  daemon.kill("SIGUSR1");
  await daemon.says("quiet");
  daemon.kill("SIGTERM");
  expect(await daemon.ended()).toBe(0);
  expect(daemon.output).not.toContain("Debugger");
});

test("a daemon that does not stop is ended by a second signal", async () => {
  const daemon = trial(`async (config, { log }) => {
    log.info("serving");
    return { [Symbol.asyncDispose]: () => { log.info("hanging"); return new Promise(() => undefined); } };
  }`);
  await daemon.says("serving");
  daemon.kill("SIGTERM");
  await daemon.says("hanging");
  const impatience = setInterval(() => daemon.kill("SIGTERM"), 100);
  onTestFinished(() => clearInterval(impatience));
  expect(await daemon.ended()).toBe(1);
  expect(daemon.output).not.toContain("did not stop in time");
});
