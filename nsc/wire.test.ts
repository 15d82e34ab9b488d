import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test, vi } from "vitest";
import { ConnectionSchema, PathSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import type { Wish } from "./request.ts";
import { createWire, refreshDelay } from "./wire.ts";

const WISH: Wish = {
  id: "client-0",
  name: "client",
  networkService: "service",
  labels: { app: "test" },
  interfaceName: "nsm-1",
  netnsUrl: "inode://4/4026531840",
};

/** A manager that answers with a path of two hops and leases of 100 s. */
function build(adopted?: Connection, firstFailure?: NsmError) {
  const clock = createFakeClock();
  const requests: NetworkServiceRequest[] = [];
  const closes: Connection[] = [];
  const ups: Connection[] = [];
  let failure = firstFailure;
  const wire = createWire(
    WISH,
    {
      manager: {
        request(request) {
          requests.push(request);
          return failure ? Promise.reject(failure) : Promise.resolve(answered(request, clock.now()));
        },
        close(connection) {
          closes.push(connection);
          return Promise.resolve();
        },
        // eslint-disable-next-line require-yield
        async *monitor() {
          await Promise.resolve();
        },
      },
      clock,
      log: silentLogger,
      requestTimeoutMs: 1000,
      random: () => 0,
      onUp: (connection) => ups.push(connection),
    },
    adopted,
  );
  const stop = new AbortController();
  const running = wire.run(stop.signal);
  return {
    clock,
    wire,
    requests,
    closes,
    ups,
    last: () => requests.at(-1)?.connection,
    fail: (error: NsmError) => {
      failure = error;
    },
    recover: () => {
      failure = undefined;
    },
    count: (n: number) => vi.waitFor(() => expect(requests).toHaveLength(n)),
    end: async () => {
      stop.abort();
      await running;
    },
  };
}

function answered(request: NetworkServiceRequest, nowMs: number): Connection {
  const connection = clone(ConnectionSchema, request.connection ?? create(ConnectionSchema));
  connection.state = State.UP;
  connection.networkServiceEndpointName = "nse-1";
  connection.path = create(PathSchema, {
    pathSegments: [
      { name: "client", id: "client-0", expires: timestampFromMs(nowMs + 100_000) },
      { name: "manager", id: "m", expires: timestampFromMs(nowMs + 200_000) },
    ],
  });
  return connection;
}

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
    const { recover, count, ups, closes, end } = build(undefined, failure);
    await count(1);
    recover();
    await count(2);
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
      const { clock, count, fail, last, end } = build();
      await count(1);
      await clock.advance(0);
      fail(new NsmError(code, "test", "no"));
      await clock.advance(20_000);
      await count(3);
      expect(last()).toMatchObject({ networkServiceEndpointName: "nse-1", state: State.UP });
      await end();
    },
  );
});

describe("moving", () => {
  const isReselect = ({ connection }: NetworkServiceRequest) =>
    connection?.state === State.RESELECT_REQUESTED && connection.networkServiceEndpointName === "";

  test("chooses anew on the same path, and says so", async () => {
    const { wire, requests, ups, count, end } = build();
    await count(1);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    wire.tell("reselect");
    await count(2);
    expect(requests.map(isReselect)).toEqual([false, true]);
    expect(requests[1]?.connection?.path?.pathSegments).toHaveLength(2);
    await vi.waitFor(() => expect(ups).toHaveLength(2));
    await end();
  });

  test("that fails is given up: the wire is kept and refreshed as before", async () => {
    const { wire, requests, ups, count, fail, recover, end } = build();
    await count(1);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("UNAVAILABLE", "all-endpoints-failed", "nobody serves"));
    wire.tell("reselect");
    await vi.waitFor(() => expect(requests.length).toBeGreaterThan(2));
    recover();
    expect(requests.map(isReselect).slice(0, 3)).toEqual([false, true, false]);
    expect(requests[2]?.connection?.networkServiceEndpointName).toBe("nse-1");
    expect(ups).toHaveLength(1);
    await end();
  });
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
      const { clock, requests, count, fail, last, ups, end } = build();
      await vi.waitFor(() => expect(ups).toHaveLength(1));
      fail(new NsmError(code, reason, "gone"));
      await clock.advance(20_000);
      await count(4);
      expect(last()?.state).toBe(State.UP);
      await clock.advance(10_000);
      const before = requests.length;
      await vi.waitFor(() => expect(requests.length).toBeGreaterThan(before + 1), { timeout: 5000 });
      expect(last()?.state).toBe(State.RESELECT_REQUESTED);
      await end();
    },
  );

  test("an endpoint whose process has ended is not waited for", async () => {
    const { clock, count, fail, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("NOT_FOUND", "process-ended", "gone"));
    await clock.advance(20_000);
    await count(3);
    expect(last()?.state).toBe(State.RESELECT_REQUESTED);
    await end();
  });

  test.each(["foreign-connection", "foreign-device"])(
    "a path that belongs to somebody else (%s) is left for one of our own segment",
    async (reason) => {
      const { clock, count, fail, last, ups, end } = build();
      await vi.waitFor(() => expect(ups).toHaveLength(1));
      fail(new NsmError("PERMISSION_DENIED", reason, "no"));
      await clock.advance(20_000);
      await count(3);
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
    await vi.waitFor(() => expect(requests.length).toBeGreaterThan(before + 1), { timeout: 10_000 });
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

test("the delay of a refresh is a fifth of the shortest lease, earlier by up to a fifth of that", () => {
  const connection = answered(create(NetworkServiceRequestSchema, { connection: {} }), 0);
  expect(refreshDelay(connection, 0, () => 0)).toBe(20_000);
  expect(refreshDelay(connection, 0, () => 1)).toBe(16_000);
  expect(refreshDelay(connection, 150_000, () => 0)).toBe(0);
  expect(refreshDelay(undefined, 0, () => 0)).toBe(0);
});
