/** Tells what the demo does: progress with elapsed time, lines, JSON. */

export interface Story {
  /** A step that is done, with the time since the command was given. */
  step(text: string): void;
  /** Lines without time. */
  print(lines: readonly string[]): void;
  /** The one document on stdout; nothing unless JSON was asked for. */
  document(value: unknown): void;
}

export function createStory(json: boolean): Story {
  const out = json ? process.stderr : process.stdout;
  return {
    step: (text) => void out.write(`${(performance.now() / 1000).toFixed(2).padStart(6)} s  ${text}\n`),
    print: (lines) => void out.write(lines.map((line) => `${line}\n`).join("")),
    document: (value) => {
      if (json) process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    },
  };
}
