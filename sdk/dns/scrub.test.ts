import packet from "dns-packet";
import type { Answer as Resource, DecodedPacket } from "dns-packet";
import { describe, expect, test } from "vitest";
import { answerTo, queryFor } from "../../test/support/dns.ts";
import { parseAnswer, parseQuery } from "./message.ts";
import { scrubbed } from "./scrub.ts";

const a = (name: string, data = "172.16.0.1"): Resource => ({ type: "A", name, ttl: 60, data });
const alias = (name: string, data: string): Resource => ({ type: "CNAME", name, ttl: 60, data });
const soa: Resource = {
  type: "SOA",
  name: "vl3",
  ttl: 60,
  data: { mname: "ns", rname: "admin", serial: 1, minimum: 60 },
};
const ns: Resource = { type: "NS", name: "cluster.local", ttl: 60, data: "ns.evil" };

/** What is left of an answer to `web.vl3`. */
function left(parts: Partial<Pick<DecodedPacket, "answers" | "authorities" | "additionals">>, rcode = 0) {
  const bytes = queryFor("Web.vl3");
  const query = parseQuery(bytes);
  if (query === undefined || Buffer.isBuffer(query)) throw new Error("no query");
  const questions = packet.decode(bytes).questions ?? [];
  const answer = parseAnswer(packet.encode({ type: "response", flags: rcode, questions, ...parts }));
  const scrub = scrubbed(answer, query, (name) => name.endsWith("cluster.local"));
  const { answers = [], authorities = [], additionals = [] } = packet.decode(scrub.bytes);
  const texts = (records: readonly Resource[]) => records.map(({ type, name }) => `${type} ${name}`);
  return {
    kind: scrub.kind,
    isSame: scrub === answer,
    records: [texts(answers), texts(authorities), texts(additionals)],
  };
}

describe("of a stranger's answer", () => {
  test("what was asked for stays, byte by byte", () => {
    expect(left({ answers: [a("web.vl3"), a("WEB.vl3", "172.16.0.2")] })).toMatchObject({
      kind: "positive",
      isSame: true,
    });
    expect(left({ authorities: [soa] }, 3)).toMatchObject({ kind: "nxDomain", isSame: true });
    expect(left({ authorities: [soa] })).toMatchObject({ kind: "noData", isSame: true });
  });

  test("aliases are followed, in whatever order they stand", () => {
    const answers = [a("c.vl3"), alias("b.vl3", "c.vl3"), alias("web.vl3", "b.vl3")];
    expect(left({ answers })).toMatchObject({ kind: "positive", isSame: true });
    const circle = [alias("web.vl3", "b.vl3"), alias("b.vl3", "web.vl3"), a("web.vl3")];
    expect(left({ answers: circle })).toMatchObject({ kind: "positive", isSame: true });
  });

  test("records of other names are left out", () => {
    const answers = [a("web.vl3"), a("db.default.svc.cluster.local", "6.6.6.6")];
    const additionals = [a("ns.evil", "6.6.6.6")];
    expect(left({ answers, authorities: [ns, soa], additionals })).toEqual({
      kind: "positive",
      isSame: false,
      records: [["A web.vl3"], [], []],
    });
    expect(left({ authorities: [ns, soa] }, 3)).toMatchObject({
      kind: "nxDomain",
      records: [[], ["SOA vl3"], []],
    });
  });

  test("nothing counts when it is about other names alone, or makes a name of the pod's an alias's target", () => {
    expect(left({ answers: [a("other.vl3")] }).kind).toBe("failed");
    const answers = [alias("web.vl3", "db.Cluster.local"), a("db.cluster.local", "6.6.6.6")];
    expect(left({ answers }).kind).toBe("failed");
  });

  test("a failure stays one, whatever it is", () => {
    expect(left({ answers: [a("x")] }, 2)).toMatchObject({ kind: "failed", isSame: true });
    const unreadable = parseAnswer(Buffer.from(answerTo(queryFor("web.vl3"), "noData").subarray(0, 20)));
    const query = parseQuery(queryFor("web.vl3"));
    if (query === undefined || Buffer.isBuffer(query)) throw new Error("no query");
    expect(scrubbed(unreadable, query, () => false)).toBe(unreadable);
  });
});
