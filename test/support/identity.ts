/** Identities in memory, for tests of what needs an X509Source. */
import type { X509Snapshot, X509Source } from "../../sdk/spiffe/source.ts";
import type { TestAuthority } from "./certificates.ts";

export interface TestSource extends X509Source {
  /** Issues a new SVID for the same id and tells the listeners. */
  rotate(): Promise<void>;
  /** Replaces parts of the snapshot and tells the listeners. */
  push(change: Partial<Omit<X509Snapshot, "generation">>): void;
}

/** `path` begins with a slash; `bundles` are those of the authority's own domain unless given. */
export async function makeSource(
  authority: TestAuthority,
  path: string,
  options: { readonly lifetimeMs?: number; readonly bundles?: X509Snapshot["bundles"] } = {},
): Promise<TestSource> {
  const issue = async (generation: number): Promise<X509Snapshot> => {
    const { lifetimeMs = 3_600_000, bundles = authority.bundles } = options;
    return { ...(await authority.issue(path, { generation, lifetimeMs })), bundles };
  };
  let snapshot = await issue(1);
  const listeners = new Set<(snapshot: X509Snapshot) => void>();
  const replace = (next: X509Snapshot) => {
    snapshot = next;
    for (const listener of listeners) listener(next);
  };
  return {
    current: () => snapshot,
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    rotate: async () => replace(await issue(snapshot.generation + 1)),
    push: (change) => replace({ ...snapshot, ...change, generation: snapshot.generation + 1 }),
    [Symbol.asyncDispose]: () => Promise.resolve(listeners.clear()),
  };
}
