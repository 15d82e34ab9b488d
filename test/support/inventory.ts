/**
 * Everything of the machine that a run of the mesh could leave behind, as lines of text, to compare before and after.
 *
 * Read with `ip`, `nft`, `ss` and /proc, never with our own netlink code, which is under test. Works in the sandbox of
 * test/support/sandbox.ts only: elsewhere other programs of the machine would show up.
 */
import { inSandbox } from "./sandbox.ts";
import { namespaceLines } from "./inventory-netns.ts";
import { descriptorLines, fileLines, kernelLogLines, mountLines, processLines } from "./inventory-system.ts";
import { allNamespaces } from "./inventory-namespaces.ts";

const KERNEL_LOG = "kernel log";

/** Lines of each section (`links of nsm-x-node1`), sorted; a line may occur more than once. */
export type Inventory = ReadonlyMap<string, readonly string[]>;

export interface InventoryOptions {
  /** State folders beside /run and the temporary folder. */
  readonly folders?: readonly string[];
  /** Long-lived daemons, by name, whose open descriptors are counted by kind. */
  readonly daemons?: ReadonlyMap<string, number>;
}

/** About 15 ms for each namespace. */
export async function takeInventory(options: InventoryOptions = {}): Promise<Inventory> {
  if (!inSandbox())
    throw new Error(
      "the inventory needs the sandbox: run the test with npm test -- <project> <file>, not with vitest alone",
    );
  const namespaces = allNamespaces();
  const sections = new Map<string, readonly string[]>([
    ["namespaces", namespaces.map((namespace) => namespace.label)],
    ["processes", processLines()],
    ["files", fileLines(options.folders ?? [])],
    ["mounts", mountLines()],
    [KERNEL_LOG, kernelLogLines()],
  ]);
  for (const [name, pid] of options.daemons ?? [])
    sections.set(`descriptors of ${name}`, descriptorLines(pid));
  const contents = await Promise.all(namespaces.map(namespaceLines));
  for (const content of contents) for (const [name, lines] of content) sections.set(name, lines);
  return new Map([...sections].map(([name, lines]) => [name, [...lines].sort()]));
}

/** Once two in a row are equal: what ends by itself (a process that its parent has not waited for yet) is not in it. */
export async function takeSettledInventory(options: InventoryOptions = {}): Promise<Inventory> {
  let last = await takeInventory(options);
  let difference = "";
  for (let looks = 0; looks < 20; looks++) {
    const next = await takeInventory(options);
    difference = diffInventory(last, next);
    if (difference === "") return next;
    last = next;
  }
  throw new Error(`the inventory does not settle, at last by:\n${difference}`);
}

/** Readable text, one line a difference: `+` is left behind, `-` is missing. Empty when equal. */
export function diffInventory(before: Inventory, after: Inventory): string {
  const names = new Set([...before.keys(), ...after.keys()]);
  return [...names]
    .flatMap((name) => {
      const had = before.get(name) ?? [];
      const has = after.get(name) ?? [];
      const changes = [
        ...surplus(has, had).map((line) => `  + ${line}`),
        // The kernel forgets old lines of its log by itself.
        ...(name === KERNEL_LOG ? [] : surplus(had, has)).map((line) => `  - ${line}`),
      ];
      return changes.length === 0 ? [] : [`${name}:`, ...changes];
    })
    .join("\n");
}

/**
 * Waits until the inventory is as it was; fails with the difference when it is not after `withinMs`. The kernel takes a
 * namespace down 40 to 60 ms after its last process.
 */
export async function expectNothingLeft(
  before: Inventory,
  options: InventoryOptions = {},
  withinMs = 2000,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const difference = diffInventory(before, await takeInventory(options));
    if (difference === "") return;
    if (performance.now() > deadline) throw new Error(`the inventory differs:\n${difference}`);
  }
}

/** What `lines` has more often than `others`. */
function surplus(lines: readonly string[], others: readonly string[]): string[] {
  const count = new Map<string, number>();
  for (const line of others) count.set(line, (count.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const left = count.get(line) ?? 0;
    count.set(line, left - 1);
    return left <= 0;
  });
}
