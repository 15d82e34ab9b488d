/**
 * Which test files run beside one another. Those that change the kernel take turns, as each compares all of its sandbox before and
 * after; but they wait more than they compute, and two sandboxes see nothing of each other.
 */
import { availableParallelism } from "node:os";

/** Seconds of files that take far more or less than others do; it matters for how evenly lanes end, and for nothing else. */
const SECONDS: Readonly<Record<string, number>> = {
  "test/e2e/partition.test.ts": 120,
  "test/e2e/federation.test.ts": 75,
  "test/e2e/demo.test.ts": 70,
  "test/e2e/pod-death.test.ts": 60,
  "test/e2e/churn.test.ts": 75,
  "test/e2e/restarts.test.ts": 50,
  "test/e2e/domains.test.ts": 40,
};
const USUAL_SECONDS: Readonly<Record<string, number>> = { netns: 10, e2e: 22 };

/** With more of them tests would measure what others leave them of a processor. */
export function laneCount(): number {
  return Math.min(2, availableParallelism());
}

/** The files, each in one of at most `count` lists that take about as long; none is empty. Paths from the repository's root, with `/`. */
export function lanesOf(files: readonly string[], count: number): readonly (readonly string[])[] {
  const lanes = Array.from({ length: count }, () => ({ files: new Array<string>(), seconds: 0 }));
  const weighed = files.map((file) => ({ file, seconds: secondsOf(file) }));
  for (const { file, seconds } of weighed.sort(
    (a, b) => b.seconds - a.seconds || (a.file < b.file ? -1 : 1),
  )) {
    const [first] = lanes.sort((a, b) => a.seconds - b.seconds);
    first?.files.push(file);
    if (first !== undefined) first.seconds += seconds;
  }
  return lanes.map((lane) => lane.files).filter((lane) => lane.length > 0);
}

function secondsOf(file: string): number {
  return SECONDS[file] ?? USUAL_SECONDS[file.split("/")[1] ?? ""] ?? 1;
}
