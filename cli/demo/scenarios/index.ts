/** The scenarios of the demo, in the order in which they play. */
import { NsmError } from "../../../sdk/errors.ts";
import { SCENARIOS } from "../scenario-names.ts";
import type { ScenarioName } from "../scenario-names.ts";
import type { Scenario } from "../scenario.ts";
import { chain } from "./chain.ts";
import { clusters } from "./clusters.ts";
import { failover } from "./failover.ts";
import { heal } from "./heal.ts";
import { local } from "./local.ts";

const scenarios: Readonly<Record<ScenarioName, Scenario>> = { local, clusters, chain, heal, failover };

/** Names separated by commas. Throws INVALID_ARGUMENT `no-such-scenario`. */
export function parseScenarios(text: string): readonly Scenario[] {
  const asked = new Set(text.split(",").map((name) => name.trim()));
  const known = Object.keys(SCENARIOS).filter((name): name is ScenarioName => name in SCENARIOS);
  for (const name of asked)
    if (!known.some((each) => each === name))
      throw new NsmError(
        "INVALID_ARGUMENT",
        "no-such-scenario",
        `there is no scenario ${JSON.stringify(name)}: choose among ${known.join(", ")}`,
      );
  return known.filter((name) => asked.has(name)).map((name) => scenarios[name]);
}
