/** What `nsm explain` tells people. Pure. */
import type { ExplainedEndpoint, Explained as ExplainedForwarder } from "../sdk/explain.ts";
import type { Preference } from "../sdk/prefer.ts";
import { printable } from "./printable.ts";
import { formatTable } from "./table.ts";

/** Of `nsm explain -o json`. */
export interface Explained {
  /** Path segment name of the client. */
  readonly client: string;
  readonly service: string;
  /** As `nsm get wires` shows it; null when no wire of the client is there, or may be seen. */
  readonly wire: string | null;
  readonly labels: Readonly<Record<string, string>>;
  /** How many matches the service has. */
  readonly matches: number;
  /** Index of the match that decides; null when the service has none, or none fits the client. */
  readonly match: number | null;
  /** The same for people, who count from 1; null as there. */
  readonly rule: string | null;
  /** Why the manager would not make the wire like this any more. */
  readonly remark: string | null;
  /** In the order in which they are asked, then the others. */
  readonly endpoints: readonly EndpointRow[];
  /** Those of the node whose manager was asked. */
  readonly forwarders: readonly ExplainedForwarder[];
}

type EndpointRow = Omit<ExplainedEndpoint, "preference"> & Preference;

export function explainText(explained: Explained, width: number): string {
  const { client, service, wire, labels, remark, endpoints, forwarders } = explained;
  const text = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  const head = [
    `client ${client}, service ${service}: ${wire === null ? "no wire that you may see" : `wire ${wire}`}`,
    `labels ${text.join(", ") || "none"}`,
    ruleText(explained),
    ...(remark === null ? [] : [`the manager says: ${remark}`]),
  ];
  const taken = (row: ExplainedForwarder) => (row.isChosen ? "in use" : row.isCandidate ? "candidate" : "no");
  const common = [
    { title: "TAKEN", value: taken },
    { title: "REASON", value: ({ reason }: ExplainedForwarder) => reason },
  ];
  const why = { title: "WHY", value: (row: ExplainedForwarder) => row.why };
  const endpointTable = formatTable<EndpointRow>(
    endpoints,
    [
      { title: "ENDPOINT", value: ({ name }) => name },
      ...common,
      { title: "TIER", value: ({ tier }) => String(tier) },
      { title: "NEAR", value: ({ distance }) => distance },
      { title: "SHARE", value: ({ share }) => (share === 0 ? "-" : `${Math.round(share * 100)} %`) },
      why,
    ],
    [],
    width,
  );
  const forwarderTable = formatTable<ExplainedForwarder>(
    forwarders,
    [{ title: "FORWARDER", value: ({ name }) => name }, ...common, why],
    [],
    width,
  );
  return [
    ...head.map(printable),
    "",
    ...(endpoints.length === 0 ? ["no endpoint of it is registered"] : endpointTable),
    "",
    ...(forwarders.length === 0 ? ["this manager has no forwarder"] : forwarderTable),
    "",
  ].join("\n");
}

function ruleText({ rule, matches }: Explained): string {
  if (rule !== null) return `${rule} decides`;
  return matches === 0
    ? "the service has no matches: every endpoint fits"
    : `none of the ${matches} matches of the service fits the client`;
}
