/** Tells what the demo does: progress with elapsed time, lines, live lines on a terminal, JSON. */
import { fitted } from "../table.ts";

export interface Story {
  /** A step that is done, with the time since the command was given. */
  step(text: string): void;
  /** Lines without time. */
  print(lines: readonly string[]): void;
  /** Lines that stay below all others until they are replaced, on a terminal. */
  live(lines: readonly string[]): void;
  /** Makes the last live lines ordinary ones, also where there is no terminal. */
  settle(): void;
  /** The one document on stdout; nothing unless JSON was asked for. */
  document(value: unknown): void;
}

/** Where it is told; a terminal has rows. */
export interface Audience {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly rows?: number;
  readonly columns?: number;
}

export function createStory(json: boolean, out: Audience = json ? process.stderr : process.stdout): Story {
  const isTerminal = out.isTTY === true;
  let live: readonly string[] = [];
  let shown = 0;
  /** One write, so that nobody sees it half done: what was live goes, the text comes, what is live comes again. */
  const tell = (text: string) => {
    const erase = shown > 0 ? `\x1b[${shown}A\x1b[J` : "";
    const below = isTerminal && live.length > 0 ? ["", ...live].slice(0, (out.rows ?? 24) - 2) : [];
    shown = below.length;
    out.write(erase + text + asText(below));
  };
  return {
    step(text) {
      const line = `${(performance.now() / 1000).toFixed(2).padStart(6)} s  ${text}`;
      tell(asText(isTerminal ? fitted(line, out.columns ?? 80, BELOW_TIME) : [line]));
    },
    print: (lines) => tell(asText(lines)),
    live(lines) {
      live = lines;
      if (isTerminal) tell("");
    },
    settle() {
      const last = live;
      live = [];
      if (last.length > 0) tell(asText(["", ...last, ""]));
    },
    document: (value) => {
      if (json) process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    },
  };
}

/** Where the text of a step begins. */
const BELOW_TIME = " ".repeat(10);

function asText(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}
