import { create } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import { State } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { answered } from "../test/support/client-wire.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { buildWire as build } from "../test/support/client-wire-bed.ts";

describe("asking", () => {
  test("sends its own segment alone, its namespace and its wish", async () => {
    const { requests, count, end } = build();
    await count(1);
    expect(requests[0]).toMatchObject({
      connection: {
        id: "client-0",
        networkService: "service",
        labels: { app: "test" },
        path: { index: 0, pathSegments: [{ name: "client", id: "client-0" }] },
      },
      mechanismPreferences: [
        { cls: "LOCAL", type: "KERNEL", parameters: { name: "nsm-1", inodeURL: "inode://4/4026531840" } },
      ],
    });
    await end();
  });

  test("tries again after a failure, and closes nothing that never was", async () => {
    const failure = new NsmError("NOT_FOUND", "service-not-found", "not yet");
    const { recover, count, countTries, ups, closes, end } = build(undefined, failure);
    await count(1);
    recover();
    await countTries(2);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    await end();
    expect(closes).toHaveLength(1);
  });

  test("stops while it fails", async () => {
    const failure = new NsmError("UNAVAILABLE", "unreachable", "no manager");
    const { count, closes, end } = build(undefined, failure);
    await count(1);
    await end();
    expect(closes).toEqual([]);
  });
});

describe("keeping", () => {
  test("refreshes with the whole answer at a fifth of the shortest lease", async () => {
    const { clock, requests, count, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    await clock.advance(19_999);
    expect(requests).toHaveLength(1);
    await clock.advance(1);
    await count(2);
    expect(last()).toMatchObject({ networkServiceEndpointName: "nse-1", state: State.UP });
    expect(last()?.path?.pathSegments).toHaveLength(2);
    await end();
  });

  test("a refresh that changes nothing is no news", async () => {
    const { clock, count, ups, end } = build();
    await count(1);
    await clock.advance(20_000);
    await count(2);
    await end();
    expect(ups).toHaveLength(1);
  });

  test.each(["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"] as const)(
    "a refresh that fails with %s leaves the wire as it is",
    async (code) => {
      const { clock, count, countTries, fail, last, end } = build();
      await count(1);
      await clock.advance(0);
      fail(new NsmError(code, "test", "no"));
      await clock.advance(20_000);
      await countTries(3);
      expect(last()).toMatchObject({ networkServiceEndpointName: "nse-1", state: State.UP });
      await end();
    },
  );
});

describe("healing", () => {
  test("DOWN asks for a new choice: no mechanism, no endpoint, the same path", async () => {
    const { wire, count, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    wire.tell("down");
    await count(2);
    expect(last()).toMatchObject({ state: State.RESELECT_REQUESTED, networkServiceEndpointName: "" });
    expect(last()?.mechanism).toBeUndefined();
    expect(last()?.path?.pathSegments).toHaveLength(2);
    await vi.waitFor(() => expect(ups).toHaveLength(2));
    await end();
  });

  test.each(["reselect", "dead"] as const)("%s asks for a new choice, too", async (news) => {
    const { wire, count, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    wire.tell(news);
    await count(2);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });

  test("bad news end a refresh that hangs, and are acted upon at once", async () => {
    const { wire, clock, count, hang, aborted, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    const release = hang();
    await clock.advance(20_000);
    await count(2);
    release();
    wire.tell("dead");
    expect(aborted()).toMatchObject({ code: "CANCELLED", message: expect.stringContaining("is dead") });
    await clock.advance(50);
    await count(3);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });

  test("bad news end the pause after a failure", async () => {
    const { wire, clock, requests, countTries, fail, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("UNAVAILABLE", "unreachable", "no"));
    await clock.advance(20_000);
    await countTries(8);
    const before = requests.length;
    wire.tell("down");
    await clock.advance(0);
    expect(requests.length).toBe(before + 1);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });

  test("a wire that stays down while nobody serves is asked for with growing pauses, and comes back", async () => {
    const { wire, clock, requests, fail, recover, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("NOT_FOUND", "no-candidates", "nobody"));
    wire.tell("down");
    await clock.advance(10_000);
    expect(requests.length).toBeGreaterThan(5);
    expect(requests.length).toBeLessThan(14);
    recover();
    await clock.advance(2400);
    expect(ups).toHaveLength(2);
    await end();
  });

  test("the data path is watched anew when it is another one, and no longer than the wire", async () => {
    const { wire, clock, watched, count, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    expect(watched).toEqual({ begun: 1, ended: 0 });
    await clock.advance(20_000);
    await count(2);
    expect(watched).toEqual({ begun: 1, ended: 0 });
    wire.tell("down");
    await count(3);
    await vi.waitFor(() => expect(watched).toEqual({ begun: 2, ended: 1 }));
    await end();
    expect(watched).toEqual({ begun: 2, ended: 2 });
  });

  test("an endpoint that is chosen again after its path was dead is judged again, ever more seldom", async () => {
    const { clock, watches, requests, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    const pauses: number[] = [];
    for (let i = 0; i < 4; i++) {
      watches.at(-1)?.onDead();
      await clock.advance(0);
      expect(watches.at(-1)?.hasAnswered).toBe(false); // an answer counts at once
      watches.at(-1)?.onDead(); // silence does not
      const [asked, begun, from] = [requests.length, watches.length, clock.monotonic()];
      while (watches.length === begun) await clock.advance(100);
      pauses.push(clock.monotonic() - from);
      expect(watches.at(-1)?.hasAnswered).toBe(true);
      expect(requests).toHaveLength(asked);
    }
    expect(pauses).toEqual([800, 1600, 3200, 6400]);
    expect(ups).toHaveLength(1);
    await end();
  });

  test("a wire whose path is dead is said to be down once, and up when the endpoint answers", async () => {
    const { clock, watches, said, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    watches.at(-1)?.onDead();
    await clock.advance(1000);
    watches.at(-1)?.onDead(); // made anew, and still dead
    await clock.advance(0);
    expect(said("wire is down, healing")).toBe(1);
    expect(said("wire does not work yet, choosing again")).toBe(1);
    expect(ups).toHaveLength(1);
    watches.at(-1)?.onAnswer();
    expect(ups).toHaveLength(2);
    await clock.advance(20_000);
    expect(ups).toHaveLength(2);
    await end();
  });

  test("another endpoint is believed at once; the dead one is not when the wire returns to it", async () => {
    const { wire, clock, watches, requests, serveBy, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    serveBy("nse-2");
    watches.at(-1)?.onDead();
    await vi.waitFor(() => expect(ups).toHaveLength(2));
    serveBy("nse-1");
    wire.tell("reselect"); // as the manager wants it, which sees no data path
    await clock.advance(0);
    expect(requests).toHaveLength(3);
    expect(ups).toHaveLength(2);
    await clock.advance(800);
    serveBy("nse-2");
    watches.at(-1)?.onDead();
    await vi.waitFor(() => expect(ups).toHaveLength(3));
    await end();
  });

  test("what answers while it is being replaced is not said to be up", async () => {
    const { wire, clock, watches, hang, count, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    watches.at(-1)?.onDead();
    await count(2);
    const release = hang();
    wire.tell("down");
    await count(3);
    watches.at(-1)?.onAnswer();
    expect(ups).toHaveLength(1);
    release();
    await clock.advance(0);
    await end();
  });

  test("a wish to refresh is followed at once", async () => {
    const { wire, count, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    wire.tell("refresh");
    await count(2);
    expect(last()?.state).toBe(State.UP);
    await end();
  });

  test.each([
    ["NOT_FOUND", "endpoint-not-found"],
    ["UNAVAILABLE", "forwarder-gone"],
  ] as const)(
    "after ten seconds of %s %s, and not before, the endpoint is chosen anew",
    async (code, reason) => {
      const { clock, requests, countTries, fail, last, ups, end } = build();
      await vi.waitFor(() => expect(ups).toHaveLength(1));
      fail(new NsmError(code, reason, "gone"));
      await clock.advance(20_000);
      await countTries(4);
      expect(last()?.state).toBe(State.UP);
      await clock.advance(10_000);
      const before = requests.length;
      await clock.advance(4000);
      expect(requests.length).toBeGreaterThan(before + 1);
      expect(last()?.state).toBe(State.RESELECT_REQUESTED);
      await end();
    },
  );

  test("an endpoint whose process has ended is not waited for", async () => {
    const { clock, countTries, fail, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("NOT_FOUND", "process-ended", "gone"));
    await clock.advance(20_000);
    await countTries(3);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });

  test.each(["foreign-connection", "foreign-device"])(
    "a path that belongs to somebody else (%s) is left for one of our own segment",
    async (reason) => {
      const { clock, countTries, fail, last, ups, end } = build();
      await vi.waitFor(() => expect(ups).toHaveLength(1));
      fail(new NsmError("PERMISSION_DENIED", reason, "no"));
      await clock.advance(20_000);
      await countTries(3);
      expect(last()?.path?.pathSegments).toHaveLength(1);
      await end();
    },
  );

  test("after the lease ran out a new wire is asked for", async () => {
    const { clock, requests, fail, ups, last, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("UNAVAILABLE", "unreachable", "no manager"));
    await clock.advance(100_000);
    const before = requests.length;
    await clock.advance(4000);
    expect(requests.length).toBeGreaterThan(before + 1);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });
});

describe("an earlier life", () => {
  const earlier = (state: State) => {
    const clock = createFakeClock();
    const connection = answered(
      create(NetworkServiceRequestSchema, { connection: { id: "client-0" } }),
      clock.now(),
    );
    connection.state = state;
    return connection;
  };

  test("is taken over by a refresh of what the manager knows", async () => {
    const { count, last, ups, end } = build(earlier(State.UP));
    await count(1);
    expect(last()?.path?.pathSegments).toHaveLength(2);
    expect(last()?.state).toBe(State.UP);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    await end();
  });

  test("that was down is chosen anew", async () => {
    const { count, last, end } = build(earlier(State.DOWN));
    await count(1);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });
});
