/** Names of the demo's scenarios and what happens in each, for `--help`: loads nothing. In the order in which they play. */
export const SCENARIOS = {
  local: "a client with a wire of each kind",
  chain: "a chain of endpoints behind a firewall, one link of which dies and is replaced",
  heal: "the endpoint in use dies and its client goes on with a spare",
} as const;
export type ScenarioName = keyof typeof SCENARIOS;

/** What plays when nobody says otherwise. */
export const DEFAULT_SCENARIOS = "local,chain,heal";
