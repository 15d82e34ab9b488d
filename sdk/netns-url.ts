/** The own network namespace as others are told of it (docs/protocol.md, "Namespaces"). */
import { statSync } from "node:fs";

/** `inode://<device>/<inode>` of the namespace that this process lives in. */
export function netnsUrl(): string {
  const { dev, ino } = statSync("/proc/self/ns/net", { bigint: true });
  return `inode://${dev}/${ino}`;
}
