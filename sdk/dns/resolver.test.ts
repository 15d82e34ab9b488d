import { describe, expect, test } from "vitest";
import { askedOf, queryFor, read } from "../../test/support/dns.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { OWN, aborted, build, knows, one, wire } from "../../test/support/name-servers.ts";
import { createResolver } from "./resolver.ts";
import type { Resolver } from "./resolver.ts";

describe("which servers are asked", () => {
  test("DNSUsecase: each name goes to the server whose domain has most of it", async () => {
    const { ask, asked } = build([OWN, wire("1.1.1.1", "domain"), wire("2.2.2.2", "domain.com")], {
      "1.1.1.1": knows({ "my.domain": one("4.4.4.4") }),
      "2.2.2.2": knows({ "my.domain.com": one("5.5.5.5") }),
    });
    expect((await ask("my.domain")).records).toEqual(["my.domain 4.4.4.4 60"]);
    expect((await ask("My.Domain.com")).records).toEqual(["My.Domain.com 5.5.5.5 60"]);
    expect(asked).toEqual(["1.1.1.1 my.domain", "2.2.2.2 My.Domain.com"]);
  });

  test("names of nobody's domain go to the pod's own servers, and no others hear of those that exist", async () => {
    const { ask, asked } = build([OWN, wire("1.1.1.1", "my.domain"), wire("2.2.2.2")], {
      "10.96.0.10": knows({ "example.com": one("93.184.216.34") }),
    });
    await ask("example.com");
    expect(asked).toEqual(["10.96.0.10 example.com"]);
  });

  test("what the pod's own servers do not know, all others are asked for", async () => {
    const { ask, asked } = build([OWN, wire("1.1.1.1", "my.domain"), wire("2.2.2.2")], {
      "10.96.0.10": knows({}),
      "1.1.1.1": knows({}),
      "2.2.2.2": knows({ "inside.corp": one("172.16.0.1") }),
    });
    expect((await ask("inside.corp")).records).toEqual(["inside.corp 172.16.0.1 60"]);
    expect(asked).toEqual(["10.96.0.10 inside.corp", "1.1.1.1 inside.corp", "2.2.2.2 inside.corp"]);
  });

  test("a wire does not get the pod's own domains, however long its own are", async () => {
    const own = { ...OWN, domains: ["cluster.local"] };
    const { ask, asked } = build([own, wire("1.1.1.1", "svc.cluster.local")], {
      "10.96.0.10": knows({ "db.svc.cluster.local": one("10.96.0.20") }),
    });
    await ask("db.svc.cluster.local");
    expect(asked).toEqual(["10.96.0.10 db.svc.cluster.local"]);
  });
});

describe("which answer is given", () => {
  test("that a name does not exist stays that, and is no failure", async () => {
    const { ask } = build([OWN, wire("1.1.1.1", "x")], {
      "10.96.0.10": knows({}),
      "1.1.1.1": () => "servFail",
    });
    expect(await ask("nowhere.example")).toMatchObject({ rcode: "NXDOMAIN", id: 7 });
  });

  test("a name without such a record is better than no name, and servers behind are not asked", async () => {
    const { ask, asked } = build([OWN, wire("1.1.1.1", "my.domain")], {
      "1.1.1.1": () => "noData",
      "10.96.0.10": () => "nxDomain",
    });
    expect(await ask("a.my.domain", { type: "AAAA" })).toMatchObject({ rcode: "NOERROR", records: [] });
    expect(asked).toEqual(["1.1.1.1 a.my.domain AAAA"]);
  });

  test("when nobody answers it is SERVFAIL, at once if they all refuse and after five seconds at the latest", async () => {
    const refusing = build([OWN], { "10.96.0.10": () => "refusesConnections" });
    expect(await refusing.ask("a.b")).toMatchObject({ rcode: "SERVFAIL", id: 7 });
    const hanging = build([OWN], { "10.96.0.10": () => "hangs" });
    const answer = hanging.ask("a.b");
    await hanging.clock.advance(5000);
    expect(await answer).toMatchObject({ rcode: "SERVFAIL" });
    expect(hanging.open()).toBe(0);
    expect(hanging.clock.armed).toBe(0);
  });

  test("that a name does not exist is believed only of those who would know", async () => {
    const { ask, clock } = build([OWN, wire("1.1.1.1", "my.domain")], {
      "10.96.0.10": (name) => (name.endsWith("my.domain") ? "nxDomain" : "hangs"),
      "1.1.1.1": (name) => (name.endsWith("my.domain") ? "refusesConnections" : "nxDomain"),
    });
    expect(await ask("a.my.domain")).toMatchObject({ rcode: "SERVFAIL" });
    const answer = ask("example.com");
    await clock.advance(5000);
    expect(await answer).toMatchObject({ rcode: "SERVFAIL" });
  });

  test("a server that hesitates is not waited for longer than a second", async () => {
    const { ask, clock, open } = build([OWN, wire("1.1.1.1", "my.domain")], {
      "1.1.1.1": () => "hangs",
      "10.96.0.10": knows({ "a.my.domain": one("10.0.0.1") }),
    });
    const answer = ask("a.my.domain");
    await clock.advance(1000);
    expect((await answer).records).toEqual(["a.my.domain 10.0.0.1 60"]);
    expect(open()).toBe(0);
  });
});

describe("search domains", () => {
  const own = { ...OWN, domains: ["default.svc.cluster.local", "cluster.local"] };

  test("a short name is found under the pod's domains, then under those of wires, and is answered as asked", async () => {
    const { ask } = build([own, wire("1.1.1.1", "my.service")], {
      "10.96.0.10": knows({ "web.default.svc.cluster.local": one("10.96.0.1") }),
      "1.1.1.1": knows({ "db.my.service": one("172.16.0.1"), "web.my.service": one("172.16.0.2") }),
    });
    expect((await ask("db")).records).toEqual(["db 172.16.0.1 60"]);
    expect((await ask("web")).records).toEqual(["web 10.96.0.1 60"]);
  });

  test("a name of a wire is found though the pod's own servers hang, by its full name", async () => {
    const { ask, clock, open } = build([own, wire("1.1.1.1", "my.service")], {
      "10.96.0.10": () => "hangs",
      "1.1.1.1": () => one("172.16.0.1"),
    });
    expect((await ask("db.my.service")).records).toEqual(["db.my.service 172.16.0.1 60"]);
    // By its short one it could be the pod's.
    const answer = ask("db");
    await clock.advance(5000);
    expect(await answer).toMatchObject({ rcode: "SERVFAIL", records: [] });
    expect(open()).toBe(0);
    expect(clock.armed).toBe(0);
  });

  test("the name as it is comes first", async () => {
    const { ask, asked } = build([own, wire("1.1.1.1", "com")], {
      "1.1.1.1": knows({ "my.com": one("1.2.3.4"), "my.com.com": one("6.6.6.6") }),
    });
    expect((await ask("my.com")).records).toEqual(["my.com 1.2.3.4 60"]);
    expect(asked).toEqual(["1.1.1.1 my.com"]);
  });

  test("other hosts get no search domains: resolvers that ask each other would make names longer and longer", async () => {
    const { ask, asked } = build([own], { "10.96.0.10": () => "nxDomain" });
    expect(await ask("db", { from: "172.16.0.9", isOwn: false })).toMatchObject({ rcode: "NXDOMAIN" });
    expect(asked).toEqual(["10.96.0.10 db"]);
  });

  test("names that would become too long are not asked for", async () => {
    const long = Array.from({ length: 62 }, () => "abc").join(".");
    const { ask, asked } = build([{ ...OWN, domains: ["cluster.local"] }], {
      "10.96.0.10": () => "nxDomain",
    });
    await ask(long);
    expect(asked).toHaveLength(1);
  });
});

describe("what is remembered", () => {
  test("an answer, for its TTL, which counts down", async () => {
    const { ask, asked, clock } = build([OWN], { "10.96.0.10": () => one("1.2.3.4", 30) });
    await ask("a.b");
    await clock.advance(10_000);
    expect(await ask("A.B", { id: 9 })).toMatchObject({ id: 9, records: ["a.b 1.2.3.4 20"] });
    expect(asked).toHaveLength(1);
    await clock.advance(20_000);
    await ask("a.b");
    expect(asked).toHaveLength(2);
  });

  test("absence, for the time of the SOA record; not when a server that may know better was not heard", async () => {
    const { ask, asked, clock } = build([OWN], { "10.96.0.10": () => "nxDomain" });
    await ask("a.b");
    await ask("a.b");
    expect(asked).toHaveLength(1);
    await clock.advance(60_000);
    await ask("a.b");
    expect(asked).toHaveLength(2);

    const unsure = build([OWN, wire("1.1.1.1")], {
      "10.96.0.10": () => "nxDomain",
      "1.1.1.1": () => "refusesConnections",
    });
    await unsure.ask("a.b");
    await unsure.ask("a.b");
    expect(unsure.asked).toHaveLength(4);
  });

  test("nothing when the servers change, not even what is being asked just then", async () => {
    const { ask, asked, resolver, groups } = build([OWN], {
      "10.96.0.10": () => "nxDomain",
      "1.1.1.1": () => one("1.2.3.4"),
    });
    const answer = ask("a.b");
    groups.push(wire("1.1.1.1", "b"));
    resolver.forget();
    await answer;
    expect((await ask("a.b")).records).toEqual(["a.b 1.2.3.4 60"]);
    expect(asked.at(-1)).toBe("1.1.1.1 a.b");
  });

  test("failures are not", async () => {
    const { ask, asked } = build([OWN], { "10.96.0.10": () => "servFail" });
    await ask("a.b");
    await ask("a.b");
    expect(asked).toHaveLength(2);
  });
});

describe("bad company", () => {
  /** Two resolvers, each of which has the other as its only server. */
  function buildLoop(addresses: Readonly<Record<"a" | "b", string>>) {
    const asked: string[] = [];
    const clock = createFakeClock();
    const make = (self: "a" | "b", other: "a" | "b"): Resolver =>
      createResolver({
        clock,
        groups: () => [{ servers: [addresses[other]], domains: ["my.domain"], isOwn: false }],
        upstreams: {
          async exchange(server, query, signal): Promise<Buffer> {
            asked.push(`${self} asks ${server} for ${askedOf(query).name}`);
            const gone = aborted(signal).then(() => undefined);
            const reply = await Promise.race([resolvers[other].answer(query, addresses[self], false), gone]);
            if (reply === undefined) throw new Error("no reply");
            return reply.bytes;
          },
        },
      });
    const resolvers: Record<"a" | "b", Resolver> = { a: make("a", "b"), b: make("b", "a") };
    return { asked, clock, resolver: resolvers.a };
  }

  test("two resolvers that ask each other end with SERVFAIL at once, and each asks once", async () => {
    const { asked, resolver } = buildLoop({ a: "172.16.0.1", b: "172.16.0.0" });
    const reply = await resolver.answer(queryFor("x.my.domain"), "127.0.0.1", false);
    expect(read(reply?.bytes ?? Buffer.alloc(0)).rcode).toBe("SERVFAIL");
    expect(asked).toEqual(["a asks 172.16.0.0 for x.my.domain", "b asks 172.16.0.1 for x.my.domain"]);
  });

  test("where a server cannot be told from a program, on loopback, the loop ends with the time, and is no storm either", async () => {
    const { asked, clock, resolver } = buildLoop({ a: "127.0.0.1", b: "127.0.0.2" });
    const answer = resolver.answer(queryFor("x.my.domain"), "127.0.0.1", false);
    await clock.advance(5000);
    const reply = await answer;
    expect(read(reply?.bytes ?? Buffer.alloc(0)).rcode).toBe("SERVFAIL");
    expect(asked).toHaveLength(2);
    expect(clock.armed).toBe(0);
  });

  test("one question of many programs, or of one that repeats it, is asked once", async () => {
    const { ask, asked, clock } = build([OWN], { "10.96.0.10": () => "hangs" });
    const answers = Array.from({ length: 50 }, (_, id) => ask("a.b", { id }));
    await clock.advance(5000);
    expect(new Set((await Promise.all(answers)).map(({ id }) => id)).size).toBe(50);
    expect(asked).toHaveLength(1);
  });

  test("T43: 64 names that hang take nothing from others, of the same server or not", async () => {
    const { ask, clock, open } = build([OWN, wire("1.1.1.1", "my.domain")], {
      "10.96.0.10": (name) => (name.startsWith("hangs") ? "hangs" : one("10.0.0.1")),
      "1.1.1.1": knows({ "a.my.domain": one("172.16.0.1"), "db.my.domain": one("172.16.0.2") }),
    });
    const hanging = Array.from({ length: 64 }, (_, i) => ask(`hangs-${i}.example`));
    await clock.advance(0);
    expect(open()).toBe(64);
    expect((await ask("a.my.domain")).records).toEqual(["a.my.domain 172.16.0.1 60"]); // no time passes
    expect((await ask("b.example")).records).toEqual(["b.example 10.0.0.1 60"]);
    await clock.advance(5000);
    expect(new Set((await Promise.all(hanging)).map(({ rcode }) => rcode))).toEqual(new Set(["SERVFAIL"]));
    expect(open()).toBe(0);
  });

  test("a wire's server that hangs delays the names of others once, and is tried again after half a minute", async () => {
    let hangs = true;
    const own = { ...OWN, domains: ["cluster.local"] };
    const { ask, clock, open } = build([own, wire("1.1.1.1", "my.domain")], {
      "10.96.0.10": knows({ "web.cluster.local": one("10.96.0.1", 1) }),
      "1.1.1.1": (name) => (hangs ? "hangs" : name === "late" ? one("172.16.0.1") : "nxDomain"),
    });
    const first = ask("web");
    await clock.advance(2000);
    expect((await first).records).toEqual(["web 10.96.0.1 1"]);
    expect((await ask("web")).records).toEqual(["web 10.96.0.1 1"]); // no time passes
    expect(await ask("nowhere.example")).toMatchObject({ rcode: "NXDOMAIN" });
    expect(open()).toBe(0);
    hangs = false;
    await clock.advance(30_000);
    expect((await ask("late")).records).toEqual(["late 172.16.0.1 60"]);
  });

  test("more than 512 open questions are answered SERVFAIL at once", async () => {
    const { ask, clock } = build([OWN], { "10.96.0.10": () => "hangs" });
    const hanging = Array.from({ length: 512 }, (_, i) => ask(`n${i}.example`));
    expect(await ask("one-more.example")).toMatchObject({ rcode: "SERVFAIL" });
    await clock.advance(5000);
    await Promise.all(hanging);
  });
});
