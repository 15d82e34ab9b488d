/** Values that each run makes up anew (ids, interface names, VNIs): one of ours stands for one of the recording, both ways. */
import type { JsonValue } from "@bufbuild/protobuf";

export interface Names {
  /** Notes a value that our code made up; only such a value may differ from the recorded one. */
  invent(value: string): string;
  /** True when the two are equal, or stand for one another from now on. */
  fits(ours: string, recorded: string): boolean;
  /** A recorded message as our component would see it. */
  toOurs(json: JsonValue): JsonValue;
}

export function createNames(): Names {
  const invented = new Set<string>();
  const toRecorded = new Map<string, string>();
  const toOurs = new Map<string, string>();
  const rename = (text: string) => toOurs.get(text) ?? text;
  const names: Names = {
    invent(value) {
      invented.add(value);
      return value;
    },
    fits(ours, recorded) {
      if (!invented.has(ours)) return ours === recorded;
      const [known, back] = [toRecorded.get(ours), toOurs.get(recorded)];
      if (known === undefined && back === undefined) {
        toRecorded.set(ours, recorded);
        toOurs.set(recorded, ours);
        return true;
      }
      return known === recorded && back === ours;
    },
    toOurs(json) {
      if (typeof json === "string") return rename(json);
      if (Array.isArray(json)) return json.map((element) => names.toOurs(element));
      if (typeof json !== "object" || json === null) return json;
      return Object.fromEntries(
        Object.entries(json).map(([key, value]) => [rename(key), names.toOurs(value)]),
      );
    },
  };
  return names;
}
