/** DNS messages of tests, and what a name server says. */
import packet from "dns-packet";
import type { Answer, DecodedPacket, Question } from "dns-packet";

export function queryFor(
  name: string,
  options: { id?: number; type?: Question["type"]; udpBytes?: number } = {},
): Buffer {
  const { id = 7, type = "A", udpBytes } = options;
  return packet.encode({
    type: "query",
    id,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type, name }],
    additionals: udpBytes === undefined ? [] : [optOf(udpBytes)],
  });
}

function optOf(udpPayloadSize: number): Answer {
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
}

/** What a server has for a name: addresses with a TTL, the port of a service, nothing of that type, no such name, or an error. */
export type Says =
  | { readonly addresses: readonly string[]; readonly ttl?: number }
  | { readonly port: number }
  | "noData"
  | "nxDomain"
  | "servFail"
  | "refused";

const RCODES = { noData: 0, nxDomain: 3, servFail: 2, refused: 5 } as const;

/** The answer to a query; absence has a SOA record with this many seconds. */
export function answerTo(query: Buffer, says: Says, negativeTtl = 60): Buffer {
  const { id, questions = [], flags = 0 } = packet.decode(query);
  const name = questions[0]?.name ?? "";
  const rcode = typeof says === "string" ? RCODES[says] : 0;
  const isNegative = says === "noData" || says === "nxDomain";
  const data = { mname: "ns", rname: "admin", serial: 1, minimum: negativeTtl };
  const answers = typeof says === "string" ? [] : recordsOf(name, says);
  return packet.encode({
    type: "response",
    ...(id !== undefined && { id }),
    flags: (flags & packet.RECURSION_DESIRED) | packet.RECURSION_AVAILABLE | rcode,
    questions,
    answers,
    authorities: isNegative ? [{ type: "SOA", name: "example", ttl: negativeTtl, data }] : [],
  });
}

function recordsOf(name: string, says: Exclude<Says, string>): Answer[] {
  if ("port" in says) return [{ type: "SRV", name, ttl: 60, data: { port: says.port, target: name } }];
  return says.addresses.map((data): Answer => ({ type: "A", name, ttl: says.ttl ?? 60, data }));
}

export interface Told {
  readonly id: number;
  readonly rcode: string;
  /** `name address ttl` of each answer. */
  readonly records: readonly string[];
  readonly isTruncated: boolean;
}

export function read(bytes: Buffer): Told {
  const decoded: DecodedPacket & { readonly rcode?: string } = packet.decode(bytes);
  return {
    id: decoded.id ?? 0,
    rcode: decoded.rcode ?? "",
    records: (decoded.answers ?? []).map((record) =>
      record.type === "A" ? `${record.name} ${record.data} ${record.ttl}` : record.type,
    ),
    isTruncated: decoded.flag_tc,
  };
}

/** The name and type that a query is for. */
export function askedOf(query: Buffer): { readonly name: string; readonly type: string } {
  const [question] = packet.decode(query).questions ?? [];
  return { name: question?.name ?? "", type: question?.type ?? "" };
}
