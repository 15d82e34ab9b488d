import packet from "dns-packet";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { answerTo, queryFor, read } from "../../test/support/dns.ts";
import { isWithin, parseDomain } from "./name.ts";
import { aged, encodeQuery, forUdp, isAnswerTo, parseAnswer, parseQuery, withId } from "./message.ts";
import type { Query } from "./message.ts";

function queryOf(bytes: Buffer): Query {
  const query = parseQuery(bytes);
  if (query === undefined || Buffer.isBuffer(query)) throw new Error("it was not taken as a query");
  return query;
}

test("a query says what is asked, and how large an answer may be", () => {
  expect(queryOf(queryFor("A.b"))).toMatchObject({
    id: 7,
    name: "A.b",
    type: "A",
    udpBytes: 512,
    edns: undefined,
  });
  expect(queryOf(queryFor("a.b", { type: "AAAA", udpBytes: 1232 }))).toMatchObject({
    type: "AAAA",
    udpBytes: 1232,
    edns: { isDnssecOk: false },
  });
  expect(queryOf(queryFor("a", { udpBytes: 65_000 })).udpBytes).toBe(4096);
  expect(queryOf(queryFor("a", { udpBytes: 10 })).udpBytes).toBe(512);
});

test("types that the library has no name for are asked for all the same", () => {
  const bytes = queryFor("a.b");
  bytes.writeUInt16BE(65, bytes.length - 4); // HTTPS
  const query = queryOf(bytes);
  expect(query.type).toBe("UNKNOWN_65");
  expect(withId(encodeQuery(query), 7)).toEqual(bytes);
});

test.each([
  ["an answer", answerTo(queryFor("a"), "noData"), undefined],
  ["less than a header", Buffer.alloc(11), undefined],
  ["an update", flagged(queryFor("a"), 5 << 11), "NOTIMP"],
  ["no question", packet.encode({ type: "query", id: 7, questions: [] }), "FORMERR"],
  [
    "two questions",
    packet.encode({
      type: "query",
      id: 7,
      questions: [
        { name: "a", type: "A" },
        { name: "b", type: "A" },
      ],
    }),
    "FORMERR",
  ],
  ["a question cut short", queryFor("a.b").subarray(0, 15), "FORMERR"],
  ["a name that points to itself", pointingToItself(), "FORMERR"],
  ["a label with a dot in it", dotted(), "FORMERR"],
  ["a zone transfer", queryFor("a", { type: "AXFR" }), "REFUSED"],
  ["the class CHAOS", chaos(), "REFUSED"],
] as const)("%s is not asked for", (_, bytes, rcode) => {
  const reply = parseQuery(bytes);
  const told = Buffer.isBuffer(reply) ? read(reply) : undefined;
  expect([told?.rcode, told?.id]).toEqual(rcode === undefined ? [undefined, undefined] : [rcode, 7]);
  expect(Buffer.isBuffer(reply) || reply === undefined).toBe(true);
});

function flagged(bytes: Buffer, flags: number): Buffer {
  bytes.writeUInt16BE(flags, 2);
  return bytes;
}

function pointingToItself(): Buffer {
  const bytes = queryFor("ab");
  bytes.writeUInt16BE(0xc00c, 12);
  return bytes;
}

function dotted(): Buffer {
  const bytes = queryFor("axb");
  bytes.write(".", 14);
  return bytes;
}

function chaos(): Buffer {
  const bytes = queryFor("version.bind", { type: "TXT" });
  bytes.writeUInt16BE(3, bytes.length - 2);
  return bytes;
}

test("whatever comes in, reading it neither throws nor hangs", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array)),
    fc.tuple(fc.nat(200), fc.nat(255)).map(([at, byte]) => {
      const answer = Buffer.from(answerTo(queryFor("a.b"), { addresses: ["1.2.3.4"] }));
      answer[at % answer.length] = byte;
      return answer;
    }),
  );
  fc.assert(
    fc.property(bytes, (message) => {
      parseQuery(message);
      const { kind, bytes: same } = parseAnswer(message);
      aged(same, 1);
      isAnswerTo(message, queryFor("a.b"));
      expect(["positive", "noData", "nxDomain", "failed"]).toContain(kind);
    }),
    { numRuns: 2000 },
  );
});

test("an answer counts for its shortest TTL, absence for its SOA record, and neither for ever", () => {
  const query = queryFor("a.b");
  expect(parseAnswer(answerTo(query, { addresses: ["1.2.3.4"], ttl: 30 }))).toMatchObject({
    kind: "positive",
    ttlSeconds: 30,
  });
  expect(parseAnswer(answerTo(query, { addresses: ["1.2.3.4"], ttl: 1e6 })).ttlSeconds).toBe(3600);
  expect(parseAnswer(answerTo(query, "nxDomain", 20))).toMatchObject({ kind: "nxDomain", ttlSeconds: 20 });
  expect(parseAnswer(answerTo(query, "noData", 1e6))).toMatchObject({ kind: "noData", ttlSeconds: 300 });
  expect(parseAnswer(answerTo(query, "refused"))).toMatchObject({ kind: "failed", ttlSeconds: 0 });
});

test("an answer is one only for its id and question", () => {
  const query = queryFor("A.b");
  expect(isAnswerTo(answerTo(queryFor("a.B"), "noData"), query)).toBe(true);
  expect(isAnswerTo(answerTo(queryFor("a.b", { id: 8 }), "noData"), query)).toBe(false);
  expect(isAnswerTo(answerTo(queryFor("a.c"), "noData"), query)).toBe(false);
  expect(isAnswerTo(answerTo(queryFor("a.b", { type: "AAAA" }), "noData"), query)).toBe(false);
  expect(isAnswerTo(query, query)).toBe(false);
  const bare = packet.encode({ type: "response", id: 7, flags: 1, questions: [] });
  expect(isAnswerTo(bare, query)).toBe(true); // FORMERR without the question
});

test("what does not fit into the program's datagram is answered as truncated", () => {
  const addresses = Array.from({ length: 40 }, (_, i) => `10.0.0.${i}`);
  const small = queryOf(queryFor("a.b"));
  const large = answerTo(queryFor("a.b"), { addresses });
  expect(read(forUdp(large, small))).toMatchObject({ id: 7, isTruncated: true, records: [] });
  expect(forUdp(large, queryOf(queryFor("a.b", { udpBytes: 4096 })))).toBe(large);
});

test("names of hosts and domains are read in lower case", () => {
  expect(parseDomain("My.Domain.")).toBe("my.domain");
  expect(parseDomain("_srv._tcp.a")).toBe("_srv._tcp.a");
  for (const text of [
    "",
    ".",
    "a..b",
    "-a",
    "a-",
    "a b",
    "ä",
    "*",
    `${"a".repeat(64)}.b`,
    `${"abc.".repeat(64)}a`,
  ])
    expect(parseDomain(text), text).toBeUndefined();
  expect(isWithin("a.b", "b")).toBe(true);
  expect(isWithin("ab", "b")).toBe(false);
});
