/** Names of the demo's scenarios and what happens in each, for `--help`: loads nothing. In the order in which they play. */
export const SCENARIOS = {
  local: "a client with a wire of each kind",
  clusters: "a client reaches an endpoint of another cluster, and a gateway there through a firewall here",
  chain: "a chain of endpoints behind a firewall, one link of which dies and is replaced",
  heal: "the endpoint in use dies and its client goes on with a spare",
  failover: "the cluster that serves is cut off, another one serves, and it comes back",
} as const;
export type ScenarioName = keyof typeof SCENARIOS;

/** What plays when nobody says otherwise. */
export const DEFAULT_SCENARIOS = Object.keys(SCENARIOS).join(",");
