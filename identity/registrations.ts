/** Who gets which identity: the registrations file as data, and which registration a caller fits (docs/identity.md). Pure. */
import { normalize } from "node:path";
import * as z from "zod";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { parseWorkloadId } from "../sdk/spiffe/id.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const id = z.int().min(0).max(0xffff_fffe);
const absolutePath = z
  .string()
  .regex(/^\/[^\0]*$/, "must be an absolute path")
  .transform((path) => normalize(path));

const Match = z
  .strictObject({
    uid: id.optional(),
    gid: id.optional(),
    /** Inode of the network namespace, or a path that it is mounted at. */
    netns: z.union([z.int().positive(), absolutePath]).optional(),
    /** A cgroup and those below it, relative to the root of the hierarchy. */
    cgroup: z
      .string()
      .transform((path) => path.replace(/^\/+|\/+$/g, ""))
      .pipe(
        z
          .string()
          .min(1, "must not be the root")
          .regex(/^[^\0]*$/),
      )
      .optional(),
    executable: absolutePath.optional(),
  })
  .refine((match) => Object.values(match).some((value) => value !== undefined), {
    message: "is empty: it would fit every process of this machine; name at least uid, gid, netns or cgroup",
  });

const File = z.strictObject({
  registrations: z.array(z.strictObject({ id: z.string(), match: Match })).min(1, "is empty"),
});

export type Match = z.infer<typeof Match>;
export type Selector = keyof Match;

export interface Registration {
  readonly id: string;
  readonly match: Match;
}

/**
 * Reads the file's text. Throws INVALID_ARGUMENT `bad-registrations` that lists every fault: YAML errors, unknown members, ids
 * that are malformed or outside `trustDomain`, and two registrations that could fit one process.
 */
export function parseRegistrations(text: string, trustDomain: string): readonly Registration[] {
  const { registrations } = readFile(text);
  const faults = [
    ...registrations.flatMap((item) => idFaults(item, trustDomain)),
    ...conflicts(registrations),
  ];
  if (faults.length > 0) throw bad(faults);
  return registrations;
}

function readFile(text: string): z.infer<typeof File> {
  try {
    return parseYamlAs(text, File);
  } catch (error) {
    throw bad([messageOf(error)]);
  }
}

function idFaults({ id }: Registration, trustDomain: string): readonly string[] {
  try {
    const parsed = parseWorkloadId(id);
    return parsed.trustDomain === trustDomain ? [] : [`${id} is not in trust domain ${trustDomain}`];
  } catch (error) {
    return [messageOf(error)];
  }
}

function conflicts(registrations: readonly Registration[]): readonly string[] {
  return registrations.flatMap((first, i) =>
    registrations
      .slice(i + 1)
      .filter((second) => !areExclusive(first.match, second.match))
      .map(
        (second) =>
          `${first.id} (${describeMatch(first.match)}) and ${second.id} (${describeMatch(second.match)}) could fit one process: ` +
          "make a selector that both have differ",
      ),
  );
}

/**
 * True when no process can fit both: a selector that both have differs. A namespace given once by number and once by path may be the
 * same; so may two cgroups of which one contains the other.
 */
export function areExclusive(a: Match, b: Match): boolean {
  const differ = (x: string | number | undefined, y: string | number | undefined) =>
    x !== undefined && y !== undefined && typeof x === typeof y && x !== y;
  return (
    differ(a.uid, b.uid) ||
    differ(a.gid, b.gid) ||
    differ(a.netns, b.netns) ||
    differ(a.executable, b.executable) ||
    (a.cgroup !== undefined &&
      b.cgroup !== undefined &&
      !isWithin(a.cgroup, b.cgroup) &&
      !isWithin(b.cgroup, a.cgroup))
  );
}

/** `inner` is `outer` or lies below it; compared by whole names. Neither begins with a slash. */
export function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(`${outer}/`);
}

/** `uid 0, netns /run/netns/a` */
export function describeMatch(match: Match): string {
  return Object.entries(match)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

function bad(faults: readonly string[]): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-registrations", `registrations:\n  ${faults.join("\n  ")}`);
}
