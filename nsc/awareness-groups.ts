/** Which wires may share addresses (docs/protocol.md, "Excluded prefixes"). Pure. */
import type { ClientInfo } from "../sdk/client-info.ts";
import { addClientInfo } from "../sdk/client-info.ts";
import type { NsUrl } from "../sdk/ns-url.ts";

/**
 * Index of the first group that names the wish, as it is written in NSM_NETWORK_SERVICES or with the labels of node and pod, which
 * the Go client wants in its groups.
 */
export function groupOf(
  wish: NsUrl,
  groups: readonly (readonly NsUrl[])[],
  info: ClientInfo,
): number | undefined {
  const labels = { ...wish.labels };
  addClientInfo(labels, info);
  const names = new Set([keyOf(wish), keyOf({ ...wish, labels })]);
  const index = groups.findIndex((group) => group.some((url) => names.has(keyOf(url))));
  return index < 0 ? undefined : index;
}

function keyOf({ networkService, mechanism, labels }: NsUrl): string {
  const sorted = Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([networkService, mechanism.type, mechanism.parameters["name"] ?? "", sorted]);
}
