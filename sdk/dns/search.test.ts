import { describe, expect, test } from "vitest";
import { OWN, build, knows, one, wire } from "../../test/support/name-servers.ts";

/** As Kubernetes writes a pod's: five dots. */
const NDOTS = 5;
const own = { ...OWN, domains: ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"] };
/** An endpoint that answers whatever it is asked. */
const evil = () => one("6.6.6.6", 3600);

describe("an endpoint that answers every name", () => {
  test("is not asked for a name within the pod's domains, though the pod's own server hangs", async () => {
    const { ask, asked, clock } = build([own, wire("1.1.1.1"), wire("2.2.2.2", "local")], {
      "10.96.0.10": () => "hangs",
      "1.1.1.1": evil,
      "2.2.2.2": evil,
    });
    const answer = ask("db.default.svc.cluster.local");
    await clock.advance(5000);
    expect(await answer).toMatchObject({ rcode: "SERVFAIL", records: [] });
    expect(asked.filter((line) => !line.startsWith("10.96.0.10"))).toEqual([]);
  });

  test.for(["db", "db.prod", "db.prod.svc"])("does not get the pod's short name %s", async (name) => {
    const long = { db: "db.default.svc.cluster.local", "db.prod": "db.prod.svc.cluster.local" };
    const { ask } = build(
      [own, wire("1.1.1.1"), wire("2.2.2.2", "prod", "svc", "my.service")],
      {
        "10.96.0.10": knows({
          [long.db]: one("10.96.0.20"),
          [long["db.prod"]]: one("10.96.0.20"),
        }),
        "1.1.1.1": evil,
        "2.2.2.2": evil,
      },
      NDOTS,
    );
    expect((await ask(name)).records).toEqual([`${name} 10.96.0.20 60`]);
  });

  test.for(["db", "db.prod"])("does not get %s either while the pod's own server hangs", async (name) => {
    const { ask, clock } = build(
      [own, wire("1.1.1.1"), wire("2.2.2.2", "my.service")],
      { "10.96.0.10": () => "hangs", "1.1.1.1": evil, "2.2.2.2": evil },
      NDOTS,
    );
    const answer = ask(name);
    await clock.advance(5000);
    expect(await answer).toMatchObject({ rcode: "SERVFAIL", records: [] });
    // Nor while that server is known to hang.
    const again = ask(name);
    await clock.advance(5000);
    expect(await again).toMatchObject({ rcode: "SERVFAIL", records: [] });
    expect(clock.armed).toBe(0);
  });

  test("may answer a name that the pod's servers do not know, and is asked again after a minute", async () => {
    const { ask, asked, clock } = build(
      [own, wire("1.1.1.1")],
      { "10.96.0.10": knows({}), "1.1.1.1": evil },
      NDOTS,
    );
    const timesAsked = () => asked.filter((line) => line === "1.1.1.1 web.vl3").length;
    expect((await ask("web.vl3")).records).toEqual(["web.vl3 6.6.6.6 3600"]);
    await clock.advance(59_000);
    await ask("web.vl3");
    expect(timesAsked()).toBe(1);
    await clock.advance(1000);
    await ask("web.vl3");
    expect(timesAsked()).toBe(2);
  });
});

describe("a domain that a wire names", () => {
  const servers = { "10.96.0.10": knows({}), "1.1.1.1": knows({ "web.vl3": one("172.16.0.1") }) };

  test("is the wire's, when the pod has no such name itself", async () => {
    const { ask } = build([own, wire("1.1.1.1", "vl3")], servers, NDOTS);
    expect((await ask("web.vl3")).records).toEqual(["web.vl3 172.16.0.1 60"]);
    expect((await ask("web")).records).toEqual(["web 172.16.0.1 60"]);
  });

  test("is the wire's after a second when the pod's servers hang", async () => {
    const { ask, clock } = build(
      [own, wire("1.1.1.1", "vl3")],
      { ...servers, "10.96.0.10": () => "hangs" },
      NDOTS,
    );
    const answer = ask("web.vl3");
    await clock.advance(1000);
    expect((await answer).records).toEqual(["web.vl3 172.16.0.1 60"]);
  });

  test("within one of the pod's is the wire's when the pod's owner accepts it", async () => {
    const accepted = { ...wire("1.1.1.1", "lab.cluster.local"), isAccepted: true };
    const { ask, asked } = build([own, accepted], {
      "10.96.0.10": knows({ "db.cluster.local": one("10.96.0.20") }),
      "1.1.1.1": knows({ "db.lab.cluster.local": one("172.16.0.1") }),
    });
    expect((await ask("db.lab.cluster.local")).records).toEqual(["db.lab.cluster.local 172.16.0.1 60"]);
    expect((await ask("db.cluster.local")).records).toEqual(["db.cluster.local 10.96.0.20 60"]);
    expect(asked).toEqual(["1.1.1.1 db.lab.cluster.local", "10.96.0.10 db.cluster.local"]);
  });
});
