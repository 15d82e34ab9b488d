/** Which of our wires has or is making which interface: settles races before the kernel sees them. */
import { NsmError } from "../../sdk/errors.ts";
import type { Wanted } from "../plan/plan.ts";

export interface InterfaceNames {
  /**
   * Claims the names of a wire beside those that it has; `places` are the identities of the namespaces of its ends.
   * ALREADY_EXISTS `interface-name-taken` when another wire has one. Either `keep` or `undo` follows.
   */
  take(wanted: Pick<Wanted, "wireId" | "ends">, places: readonly string[]): { keep(): void; undo(): void };
  release(wireId: string): void;
}

export function createInterfaceNames(): InterfaceNames {
  const owners = new Map<string, string>();
  const keysOf = (wireId: string) => [...owners].filter(([, owner]) => owner === wireId).map(([key]) => key);
  return {
    take({ wireId, ends }, places) {
      const before = new Set(keysOf(wireId));
      const keys = ends.map(({ name }, i) => `${places[i]}/${name}`);
      for (const [i, key] of keys.entries()) {
        const owner = owners.get(key) ?? wireId;
        if (owner !== wireId)
          throw new NsmError(
            "ALREADY_EXISTS",
            "interface-name-taken",
            `interface name ${ends[i]?.name} is taken by another wire (${owner}): ask for another name or close that one`,
          );
      }
      for (const key of keys) owners.set(key, wireId);
      const drop = (doomed: Iterable<string>) => {
        for (const key of doomed) owners.delete(key);
      };
      return {
        keep: () => drop([...before].filter((key) => !keys.includes(key))),
        undo: () => drop(keys.filter((key) => !before.has(key))),
      };
    },
    release(wireId) {
      for (const key of keysOf(wireId)) owners.delete(key);
    },
  };
}
