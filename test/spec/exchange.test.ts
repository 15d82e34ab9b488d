/** exchange.json: the recorded mesh, replayed with our components one at a time. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { readVectors } from "./support.ts";
import { DIFFERENCES, FINDS_OF_PROXIES } from "./exchange/differences.ts";
import { MUTATIONS } from "./exchange/mutations.ts";
import { replayComponent } from "./exchange/replay.ts";
import { textOf } from "./exchange/report.ts";
import { NOT_OURS, startOf } from "./exchange/replayed.ts";
import type { RecordedCase } from "./exchange/recording.ts";

// `/proc` of processes that only the recording knows: they live in its network namespaces.
vi.mock("node:fs", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:fs")>();
  const { inodeBehind } = await import("./exchange/netns.ts");
  const statSync = (...args: Parameters<typeof real.statSync>) => {
    const ino = inodeBehind(args[0]);
    return ino === undefined ? real.statSync(...args) : { ino };
  };
  return { ...real, statSync };
});

const file = readVectors("exchange.json");
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- data of ours in a documented format, see support.ts
const cases = file.cases as readonly RecordedCase[];

/** Calls by role, direction and method. */
const compared = new Map<string, number>();

describe("exchange.json", () => {
  it("has only roles that are replayed or known to be somebody else's", () => {
    const roles = new Set(cases.flatMap(({ components }) => components.map(({ role }) => role)));
    expect([...roles].filter((role) => startOf(role) === undefined && !NOT_OURS.has(role))).toEqual([]);
  });

  for (const recorded of cases)
    for (const component of recorded.components) {
      const start = startOf(component.role);
      if (start === undefined) continue;
      it(`replays ${component.name} of ${recorded.name}`, async () => {
        const report = await replayComponent(recorded, component, start);
        expect(report.findings.filter(({ record }) => record === undefined).map(textOf)).toEqual([]);
        for (const [kind, count] of report.compared) compared.set(kind, (compared.get(kind) ?? 0) + count);
      });
    }

  it("has calls of every role to compare", () => {
    const roles = new Set(cases.flatMap(({ components }) => components.map(({ role }) => role)));
    const looked = new Set([...compared.keys()].map((kind) => kind.split(" ")[0]));
    expect([...roles].filter((role) => startOf(role) !== undefined && !looked.has(role))).toEqual([]);
  });

  it("differs only where DECISIONS.md says so", () => {
    const decisions = readFileSync(join(import.meta.dirname, "../../DECISIONS.md"), "utf8");
    const records = [...DIFFERENCES.map(({ record }) => record), FINDS_OF_PROXIES];
    expect(records.filter((record) => !decisions.includes(`## ${record}. `))).toEqual([]);
  });
});

describe("a recording that says something else", () => {
  it.each(MUTATIONS)("is noticed: $what", async ({ role, mutate }) => {
    const place = cases
      .flatMap((recorded) => recorded.components.map((component) => ({ recorded, component })))
      .filter(({ component }) => component.role === role)
      .find(({ recorded, component }) => mutate(recorded, component.name) !== undefined);
    const start = startOf(role);
    const changed = place && mutate(place.recorded, place.component.name);
    if (place === undefined || changed === undefined || start === undefined)
      throw new Error("nothing to change");
    const report = await replayComponent(changed, place.component, start);
    expect(report.findings.filter(({ record }) => record === undefined)).not.toEqual([]);
  });
});
