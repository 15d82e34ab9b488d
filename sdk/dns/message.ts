/** DNS messages as a forwarding resolver needs them (RFC 1035 §4, RFC 2308, RFC 6891); the coding itself is dns-packet's. */
import packet from "dns-packet";
import type { Answer as Resource, DecodedPacket, Packet, Question } from "dns-packet";

export const Rcode = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;

const HEADER_BYTES = 12;
const TRUNCATED = 0x0200;
const RECURSION_AVAILABLE = 0x0080;
/** Without EDNS (RFC 1035 §4.2.1), and the most that is sent in one datagram with it. */
const PLAIN_UDP_BYTES = 512;
const MOST_UDP_BYTES = 4096;
/** What servers are told to send us in one datagram: no fragments on a tunnel (RFC 9715). */
const OWN_UDP_BYTES = 1232;
/** Longest time in a cache, for answers and for their absence (RFC 2308 §5). */
const LONGEST_TTL_S = 3600;
const LONGEST_NEGATIVE_TTL_S = 300;

/** One question with what decides how it is answered. */
export interface Query {
  readonly id: number;
  /** As it was written, without the dot at the end; the root is `.`. */
  readonly name: string;
  /** `A`, `AAAA`, `UNKNOWN_65`, … */
  readonly type: string;
  /** Recursion desired, authentic data, checking disabled. */
  readonly flags: number;
  /** Undefined without EDNS. */
  readonly edns: { readonly isDnssecOk: boolean } | undefined;
  /** Largest answer that fits into a datagram. */
  readonly udpBytes: number;
  /** The question's bytes behind the header. */
  readonly question: Buffer;
}

const PASSED_ON = packet.RECURSION_DESIRED | packet.AUTHENTIC_DATA | packet.CHECKING_DISABLED;
/** Zone transfers, and ANY, which only feeds amplification (RFC 8482). */
const REFUSED_TYPES = new Set(["AXFR", "IXFR", "ANY"]);

/** A query, an error to be sent back, or undefined for what must not be answered at all. */
export function parseQuery(bytes: Buffer): Query | Buffer | undefined {
  if (bytes.length < HEADER_BYTES || (bytes.readUInt16BE(2) & 0x8000) !== 0) return undefined;
  if (((bytes.readUInt16BE(2) >> 11) & 0xf) !== 0) return headerReply(bytes, Rcode.NOTIMP);
  const decoded = decode(bytes);
  const [question, ...more] = decoded?.questions ?? [];
  if (decoded === undefined || question === undefined || more.length > 0)
    return headerReply(bytes, Rcode.FORMERR);
  const query = queryOf(decoded, question);
  // Labels that a text cannot hold (dots, bytes that are no UTF-8) would be asked for as others.
  const asked = bytes.subarray(HEADER_BYTES, HEADER_BYTES + query.question.length);
  if (!asked.equals(query.question)) return headerReply(bytes, Rcode.FORMERR);
  if (REFUSED_TYPES.has(query.type) || (question.class ?? "IN") !== "IN")
    return errorReply(query, Rcode.REFUSED);
  return query;
}

function decode(bytes: Buffer): DecodedPacket | undefined {
  try {
    return packet.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Undefined for records that the library reads but does not write. */
export function encode(decoded: Packet): Buffer | undefined {
  try {
    return packet.encode(decoded);
  } catch {
    return undefined;
  }
}

function queryOf(decoded: DecodedPacket, question: Question): Query {
  const opt = decoded.additionals?.find((each) => each.type === "OPT");
  const encoded = packet.encode({ type: "query", questions: [question] });
  return {
    id: decoded.id ?? 0,
    name: question.name,
    type: question.type,
    flags: (decoded.flags ?? 0) & PASSED_ON,
    edns: opt === undefined ? undefined : { isDnssecOk: opt.flag_do },
    udpBytes:
      opt === undefined
        ? PLAIN_UDP_BYTES
        : Math.min(MOST_UDP_BYTES, Math.max(PLAIN_UDP_BYTES, opt.udpPayloadSize)),
    question: encoded.subarray(HEADER_BYTES),
  };
}

/** The same question for another name; undefined when there is no such name. */
export function withName(query: Query, name: string): Query | undefined {
  const labels = name.split(".");
  if (Buffer.byteLength(name) > 253 || labels.some((label) => label === "" || Buffer.byteLength(label) > 63))
    return undefined;
  const type = questionType(query);
  const encoded = packet.encode({ type: "query", questions: [{ name, type }] });
  return { ...query, name, question: encoded.subarray(HEADER_BYTES) };
}

function questionType({ type }: Query): Question["type"] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it was decoded by the same library, which also codes UNKNOWN_65
  return type as Question["type"];
}

/** Two queries with one key have the same answer. */
export function keyOf({ name, type, flags, edns }: Query): string {
  return `${name.toLowerCase()} ${type} ${flags} ${edns === undefined ? "" : `edns ${edns.isDnssecOk}`}`;
}

/** As it is asked of a server, with the id 0. */
export function encodeQuery(query: Query): Buffer {
  const { name, flags, edns } = query;
  return packet.encode({
    type: "query",
    id: 0,
    flags,
    questions: [{ name, type: questionType(query) }],
    additionals:
      edns === undefined
        ? []
        : [
            {
              type: "OPT",
              name: ".",
              udpPayloadSize: OWN_UDP_BYTES,
              extendedRcode: 0,
              ednsVersion: 0,
              flags: edns.isDnssecOk ? packet.DNSSEC_OK : 0,
              flag_do: edns.isDnssecOk,
              options: [],
            },
          ],
  });
}

/** `noData`: the name exists, but not with this type. */
export type AnswerKind = "positive" | "noData" | "nxDomain" | "failed";

export interface Answer {
  readonly kind: AnswerKind;
  /** With any id. */
  readonly bytes: Buffer;
  /** How long it may be kept; 0 for failures and for absence without a SOA record. */
  readonly ttlSeconds: number;
}

/** What a server's answer says; whatever cannot be read has failed. */
export function parseAnswer(bytes: Buffer): Answer {
  const decoded = decode(bytes);
  const rcode = bytes.length < HEADER_BYTES ? Rcode.SERVFAIL : bytes.readUInt16BE(2) & 0xf;
  if (decoded === undefined) return { kind: "failed", bytes, ttlSeconds: 0 };
  if (rcode === Rcode.NXDOMAIN) return { kind: "nxDomain", bytes, ttlSeconds: negativeTtl(decoded) };
  if (rcode !== Rcode.NOERROR) return { kind: "failed", bytes, ttlSeconds: 0 };
  const answers = decoded.answers ?? [];
  if (answers.length === 0) return { kind: "noData", bytes, ttlSeconds: negativeTtl(decoded) };
  const ttls = answers.map(ttlOf);
  return { kind: "positive", bytes, ttlSeconds: Math.min(LONGEST_TTL_S, ...ttls) };
}

function negativeTtl({ authorities = [] }: DecodedPacket): number {
  for (const record of authorities)
    if (record.type === "SOA")
      return Math.min(LONGEST_NEGATIVE_TTL_S, ttlOf(record), record.data.minimum ?? 0);
  return 0;
}

function ttlOf(record: Resource): number {
  return record.type === "OPT" ? Infinity : (record.ttl ?? 0);
}

/** An answer for `asked.name` as the answer for the name that the program asked for (RFC 1035 §4.1.1). */
export function renamed(answer: Answer, asked: Query, query: Query): Answer {
  const decoded = decode(answer.bytes);
  if (decoded === undefined || asked.name === query.name) return answer;
  const from = asked.name.toLowerCase();
  const answers = (decoded.answers ?? []).map((record) =>
    record.name.toLowerCase() === from ? { ...record, name: query.name } : record,
  );
  const question = { name: query.name, type: questionType(query) };
  const bytes = encode({ ...decoded, questions: [question], answers });
  return bytes === undefined ? { ...answer, kind: "failed", ttlSeconds: 0 } : { ...answer, bytes };
}

/** The same answer after so many seconds in a cache; undefined when it cannot be written. */
export function aged(bytes: Buffer, seconds: number): Buffer | undefined {
  const decoded = decode(bytes);
  if (decoded === undefined || seconds === 0) return bytes;
  const older = (records: readonly Resource[] = []) =>
    records.map((record) =>
      record.type === "OPT" ? record : { ...record, ttl: Math.max(0, (record.ttl ?? 0) - seconds) },
    );
  const { answers, authorities, additionals } = decoded;
  return encode({
    ...decoded,
    answers: older(answers),
    authorities: older(authorities),
    additionals: older(additionals),
  });
}

/** A copy with the id of the query that it answers. */
export function withId(bytes: Buffer, id: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt16BE(id, 0);
  return copy;
}

export function errorReply(query: Query, rcode: number): Buffer {
  return replyWith(query, query.flags | RECURSION_AVAILABLE | rcode);
}

/** The answer, or an empty one that makes the program ask by TCP. */
export function forUdp(bytes: Buffer, query: Query): Buffer {
  if (bytes.length <= query.udpBytes) return bytes;
  return replyWith(query, (bytes.readUInt16BE(2) & 0x7fff) | TRUNCATED);
}

function replyWith({ id, question }: Query, flags: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(0x8000 | flags, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, question]);
}

/** For what cannot be read beyond its header. */
function headerReply(bytes: Buffer, rcode: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  bytes.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8000 | (bytes.readUInt16BE(2) & 0x7900) | rcode, 2);
  return header;
}

/** True when a server's message answers this query: id, and question in any case (RFC 5452 §9.1). Errors may lack the question. */
export function isAnswerTo(bytes: Buffer, query: Buffer): boolean {
  if (bytes.length < HEADER_BYTES || (bytes.readUInt16BE(2) & 0x8000) === 0) return false;
  if (bytes.readUInt16BE(0) !== query.readUInt16BE(0)) return false;
  if (bytes.readUInt16BE(4) === 0) return (bytes.readUInt16BE(2) & 0xf) !== 0;
  const end = questionEnd(query);
  const question = (of: Buffer) => of.toString("latin1", HEADER_BYTES, end).toLowerCase();
  return bytes.readUInt16BE(4) === 1 && question(bytes) === question(query);
}

/** Of our own query, whose one question has no pointers. */
function questionEnd(query: Buffer): number {
  let at = HEADER_BYTES;
  while ((query[at] ?? 0) !== 0) at += 1 + (query[at] ?? 0);
  return at + 5;
}

export function isTruncated(bytes: Buffer): boolean {
  return bytes.length >= HEADER_BYTES && (bytes.readUInt16BE(2) & TRUNCATED) !== 0;
}
