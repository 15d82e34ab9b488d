/** Measurements between two namespaces: starts the two ends of cli/probe/main.ts there and hears what they say. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { delay } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { selfCommand } from "../package-root.ts";
import type { ProbeNews } from "./main.ts";
import type { ProbeReport } from "./tally.ts";

/** An address of this family. */
const FAMILY = { 4: "0.0.0.0", 6: "::" } as const;
const READY_WITHIN_MS = 20_000;

export interface ProbeOptions {
  /** File of the namespace (`/run/netns/name`). */
  readonly netns: string;
  /** All of its environment beside PATH. */
  readonly env?: NodeJS.ProcessEnv;
  /** The words that start `nsm`; default the ones that started us. */
  readonly nsm?: readonly string[];
}

export interface Arrival {
  /** Name of the reflector. */
  readonly from: string;
  /** On the clock of cli/probe/main.ts. */
  readonly atMs: number;
}

/** Gives probes back under its name until it is killed. */
export interface Reflector extends AsyncDisposable {
  /** As a crash. */
  kill(): Promise<void>;
}

/** Sends a probe each millisecond. */
export interface Prober extends AsyncDisposable {
  /** The first arrival and each first one from another reflector, so far. */
  readonly arrivals: readonly Arrival[];
  /** The first of them, had already or to come, for which `test` holds. Throws the signal's reason; UNAVAILABLE `probe-ended`. */
  waitFor(test: (arrival: Arrival) => boolean, signal: AbortSignal): Promise<Arrival>;
  /** Stops sending and waits for those on their way. */
  stop(): Promise<ProbeReport>;
}

/** Greets whoever connects by TCP. */
export async function startListener(
  address: string,
  ports: readonly number[],
  options: ProbeOptions,
): Promise<AsyncDisposable> {
  const { child, ended } = await startEnd(
    ["listen", address, ...ports.map(String)],
    options,
    () => undefined,
  );
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** True when a listener has greeted, false when it has not within a second. */
export async function canConnect(address: string, port: number, options: ProbeOptions): Promise<boolean> {
  let isGreeted: boolean | undefined;
  const { ended } = await startEnd(["connect", address, String(port)], options, (news, child) => {
    if (news.event !== "connected") return;
    isGreeted = news.greeted;
    child.stdin?.end();
  });
  await ended;
  if (isGreeted !== undefined) return isGreeted;
  throw new NsmError(
    "UNAVAILABLE",
    "probe-ended",
    `the probe of ${address} port ${port} ended without a word`,
  );
}

export async function startReflector(
  name: string,
  options: ProbeOptions & { family?: 4 | 6 },
): Promise<Reflector> {
  const end = await startEnd(["reflect", name, FAMILY[options.family ?? 4]], options, () => undefined);
  const kill = async () => {
    end.child.kill("SIGKILL");
    await end.ended;
  };
  return { kill, [Symbol.asyncDispose]: kill };
}

export async function startProber(address: string, options: ProbeOptions): Promise<Prober> {
  const arrivals: Arrival[] = [];
  let report: ProbeReport | undefined;
  let changed = Promise.withResolvers<void>();
  const { child, ended } = await startEnd(["send", address], options, (news) => {
    if (news.event === "arrival") arrivals.push({ from: news.from, atMs: news.atMs });
    if (news.event === "report") report = news.report;
    changed.resolve();
    changed = Promise.withResolvers();
  });
  const endedEarly = () =>
    new NsmError("UNAVAILABLE", "probe-ended", `the prober of ${address} in ${options.netns} has ended`);
  let isOver = false;
  void ended.then(() => {
    isOver = true;
    changed.resolve();
  });
  return {
    arrivals,
    async waitFor(test, signal) {
      const aborted = Promise.withResolvers<void>();
      const onAbort = () => aborted.resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for (;;) {
          signal.throwIfAborted();
          const found = arrivals.find(test);
          if (found !== undefined) return found;
          if (isOver) throw endedEarly();
          await Promise.race([changed.promise, aborted.promise]);
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    async stop() {
      child.stdin?.end();
      await ended;
      if (report === undefined) throw endedEarly();
      return report;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/**
 * What the prober itself loses and how long it sees nothing, over a link without a mesh: figures of a wire mean nothing
 * below these. `address` is one of the namespace `to`.
 */
export async function checkProber(
  from: ProbeOptions,
  to: ProbeOptions,
  address: string,
  forMs: number,
  signal: AbortSignal,
): Promise<ProbeReport> {
  await using ends = new AsyncDisposableStack();
  ends.use(await startReflector("self-check", to));
  const prober = ends.use(await startProber(address, from));
  await prober.waitFor(() => true, signal);
  await delay(forMs, signal);
  return await prober.stop();
}

interface End {
  readonly child: ChildProcess;
  /** Never rejects. */
  readonly ended: Promise<unknown>;
}

/** Resolves when it works. Throws UNAVAILABLE `probe-ended` with what it said when it does not. */
async function startEnd(
  words: readonly string[],
  { netns, env = {}, nsm = selfCommand() }: ProbeOptions,
  onNews: (news: ProbeNews, child: ChildProcess) => void,
): Promise<End> {
  const child = spawn("nsenter", [`--net=${netns}`, "--", ...nsm, "_probe", ...words], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], ...env },
  });
  let complaints = "";
  child.stderr.on("data", (data: Buffer) => (complaints += data.toString()));
  child.stdin.on("error", () => undefined); // it has ended: `ended` says so
  const ready = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- main.ts says what ProbeNews lists
    const news = JSON.parse(line) as ProbeNews;
    if (news.event === "ready") ready.resolve();
    onNews(news, child);
  });
  const ended = once(child, "close").catch(() => undefined);
  const late = setTimeout(() => child.kill("SIGKILL"), READY_WITHIN_MS);
  const failed = ended.then(() => {
    throw new NsmError(
      "UNAVAILABLE",
      "probe-ended",
      `nsm _probe ${words.join(" ")} in ${netns}: ${complaints.trim()}`,
    );
  });
  failed.catch(() => undefined); // also when it was ready before
  try {
    await Promise.race([ready.promise, failed]);
  } finally {
    clearTimeout(late);
  }
  return { child, ended };
}
