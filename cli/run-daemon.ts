/** Runs one daemon as this process: configuration, signals, faults and the exit code. */
import module from "node:module";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { readConfig } from "../sdk/config.ts";
import type { Environment } from "../sdk/config.ts";
import type { Daemon } from "../sdk/daemon.ts";
import { createLogger } from "../sdk/log.ts";
import type { Logger } from "../sdk/log.ts";
import type { MetricsServer } from "../sdk/metrics/serve.ts";
import { ExitCode } from "./exit-code.ts";
import { packageVersion } from "./version.ts";

/** Also a terminal that is closed and Ctrl-\: whoever ends so would leave what it has changed, a resolv.conf among it. */
const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const;
/** How long a daemon may take to stop after one of them. */
const STOP_WITHIN_MS = 5000;
/** After its start a daemon is busy with what waited for it. */
const KEEP_COMPILED_AFTER_MS = 1000;
/** A second signal this soon is the same one: a terminal and npm both pass Ctrl-C on. */
const SAME_SIGNAL_MS = 500;

/**
 * Starts the daemon and resolves with the exit code once it has ended: 0 after one of `STOP_SIGNALS`, 1 when it could not
 * start or stop, 2 for bad configuration (every fault is printed). An uncaught error ends the process with 1.
 */
export async function runDaemon(daemon: Daemon, env: Environment): Promise<number> {
  const warnings: string[] = [];
  let config;
  try {
    config = readConfig(daemon.table, env, (line) => warnings.push(line));
    daemon.check?.(config);
  } catch (error) {
    const misspelt = warnings.map((line) => `  ${line}\n`).join("");
    console.error(
      `nsm ${daemon.name}: ${messageOf(error)}\n${misspelt}run nsm ${daemon.name} --help for its environment`,
    );
    return ExitCode.badUsage;
  }
  const log = createLogger(daemon.name, env["NSM_LOG_LEVEL"] || "INFO");
  for (const line of warnings) log.warn(line);
  exitOnUncaught(log);
  changeLevelOnSignals(log);

  const { signal: stop, end } = stopSignal(log);
  // Nothing of the daemon may be all that keeps the process alive: it ends here, not when handles run out.
  const alive = setInterval(() => undefined, 2 ** 30);
  // Node keeps what it has compiled when a process ends, which one that is killed does not: the next would compile all again.
  const compiled = setTimeout(() => module.flushCompileCache(), KEEP_COMPILED_AFTER_MS);
  try {
    await using resources = new AsyncDisposableStack();
    const metrics = await startMetrics(daemon.name, config, log);
    if (metrics !== undefined) resources.use(metrics);
    resources.use(await daemon.start(config, { signal: stop, log, stop: (why) => end({ why }) }));
    metrics?.ready();
    await aborted(stop);
  } catch (error) {
    if (stop.aborted && isCancellation(error)) return ExitCode.ok; // stopped while it was starting
    log.fatal(faultFields(error), "daemon failed");
    return ExitCode.failed;
  } finally {
    clearInterval(alive);
    clearTimeout(compiled);
  }
  return ExitCode.ok;
}

/** Before the daemon, so that everything is counted and a probe hears that it is starting. Undefined where nobody asks for it. */
async function startMetrics(role: string, config: object, log: Logger): Promise<MetricsServer | undefined> {
  const listenOn = "metricsListenOn" in config ? config.metricsListenOn : undefined;
  if (typeof listenOn !== "string") return undefined;
  const { openMetrics } = await import("../sdk/metrics/serve.ts");
  return await openMetrics({ listenOn, role, version: packageVersion(), log });
}

/** Aborted by the first of `STOP_SIGNALS`. A second one, or a daemon that does not stop in time, ends the process. */
function stopSignal(log: Logger): {
  signal: AbortSignal;
  end: (why: { signal: string } | { why: string }) => void;
} {
  const controller = new AbortController();
  let firstMs = 0;
  const end = (reason: { signal: string } | { why: string }) => {
    if (controller.signal.aborted) return;
    log.info(reason, "stopping");
    setTimeout(() => {
      log.error({ afterMs: STOP_WITHIN_MS }, "did not stop in time");
      process.exit(ExitCode.failed);
    }, STOP_WITHIN_MS).unref();
    controller.abort(new NsmError("CANCELLED", "stopping", `stopped: ${Object.values(reason).join()}`));
  };
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted && performance.now() - firstMs > SAME_SIGNAL_MS)
      process.exit(ExitCode.failed);
    if (!controller.signal.aborted) firstMs = performance.now();
    end({ signal: name });
  };
  for (const name of STOP_SIGNALS) process.on(name, onSignal);
  return { signal: controller.signal, end };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Logs an uncaught error or unhandled rejection once and ends the process; its parent or supervisor starts it again. */
function exitOnUncaught(log: Logger): void {
  let failing = false;
  process.on("uncaughtException", (error, origin) => {
    if (failing) process.exit(ExitCode.failed);
    failing = true;
    log.fatal({ ...faultFields(error), origin }, "uncaught error");
    process.exit(ExitCode.failed);
  });
}

/** As the Go programs do: SIGUSR1 logs everything, SIGUSR2 goes back. It also keeps Node from opening its debugger. */
function changeLevelOnSignals(log: Logger): void {
  const configured = log.level;
  process.on("SIGUSR1", () => (log.level = "trace"));
  process.on("SIGUSR2", () => (log.level = configured));
}

function isCancellation(error: unknown): boolean {
  if (error instanceof NsmError) return error.code === "CANCELLED";
  return error instanceof Error && error.name === "AbortError";
}

/** An error of ours says all in its message; anything else is a bug and needs its stack. */
function faultFields(error: unknown): object {
  if (error instanceof NsmError) return { code: error.code, reason: error.reason, err: error.message };
  return { err: error };
}
