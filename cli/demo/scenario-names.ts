/** Names of the demo's scenarios and what happens in each, for `--help`: loads nothing. In the order in which they play. */
export const SCENARIOS = {
  local: "a client with a wire of each kind",
  clusters: "client in east, endpoint in west; the same with a firewall between",
  chain: "a chain of endpoints, one link of which dies and is replaced",
  heal: "the endpoint in use dies and its client goes on with a spare",
  failover: "the serving cluster is cut off; another serves until it is back",
} as const;
export type ScenarioName = keyof typeof SCENARIOS;

/** What plays when nobody says otherwise. */
export const DEFAULT_SCENARIOS = Object.keys(SCENARIOS).join(",");
