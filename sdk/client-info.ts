/** Labels that say where a workload runs, from the environment of its pod. */
const LABELS = ["nodeName", "podName", "zoneName", "clusterName"] as const;

export type ClientInfo = ReadonlyMap<string, string>;

/** From the variables NODE_NAME, POD_NAME, ZONE_NAME and CLUSTER_NAME of a daemon's configuration. */
export function clientInfoOf(config: {
  readonly [K in (typeof LABELS)[number]]: string | undefined;
}): ClientInfo {
  return new Map(
    LABELS.flatMap((label): [string, string][] => {
      const value = config[label];
      return value === undefined ? [] : [[label, value]];
    }),
  );
}

/** Adds the labels that are absent. */
export function addClientInfo(labels: { [key: string]: string }, info: ClientInfo): void {
  for (const [label, value] of info) if (!Object.hasOwn(labels, label)) labels[label] = value;
}
