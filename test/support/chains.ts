/** Network services whose matches lead along a chain of endpoints. */

/**
 * A manifest: whoever has the label `app` of an endpoint is led to the next one, everybody else to the first. `more`: matches (YAML) before
 * that last one.
 */
export function chainService(
  name: string,
  payload: "IP" | "ETHERNET",
  apps: readonly string[],
  ...more: readonly string[]
): string {
  const hops = apps.slice(1).map((to, i) => match(to, `source_selector: { app: ${apps[i]} }, `));
  return `kind: NetworkService
metadata: { name: ${name} }
spec:
  payload: ${payload}
  matches:
${[...hops, ...more, match(apps[0] ?? "")].map((line) => `    - ${line}\n`).join("")}`;
}

function match(to: string, from = ""): string {
  return `{ ${from}routes: [{ destination_selector: { app: ${to} } }] }`;
}
