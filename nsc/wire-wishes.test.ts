/** What the manager wants of a client's wire beside what has happened to it: to be elsewhere, or to try again. */
import { describe, expect, test, vi } from "vitest";
import { State } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { buildWire as build } from "../test/support/client-wire-bed.ts";

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
    const { wire, requests, ups, count, countTries, fail, recover, end } = build();
    await count(1);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("UNAVAILABLE", "all-endpoints-failed", "nobody serves"));
    wire.tell("reselect");
    await countTries(3);
    recover();
    expect(requests.map(isReselect).slice(0, 3)).toEqual([false, true, false]);
    expect(requests[2]?.connection?.networkServiceEndpointName).toBe("nse-1");
    expect(ups).toHaveLength(1);
    await end();
  });

  test("an endpoint that the service does not lead to any more is left at once", async () => {
    const { clock, count, fail, recover, requests, last, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    fail(new NsmError("NOT_FOUND", "endpoint-mismatch", "the matches lead elsewhere"));
    await clock.advance(20_000);
    await count(3);
    expect(requests.map(({ connection }) => connection?.state)).toEqual([
      State.UP,
      State.UP,
      State.RESELECT_REQUESTED,
    ]);
    expect(last()?.networkServiceEndpointName).toBe("");
    recover();
    await clock.advance(60);
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    expect(last()).toMatchObject({ state: State.UP, networkServiceEndpointName: "nse-1" });
    await end();
  });
});

describe("waiting", () => {
  test("the manager's word that somebody serves now ends the pause, and the ones after it are short again", async () => {
    const failure = new NsmError("NOT_FOUND", "no-candidates", "nobody");
    const { wire, clock, requests, recover, ups, end } = build(undefined, failure);
    await clock.advance(15_000);
    const before = requests.length;
    await clock.advance(2500);
    expect(requests).toHaveLength(before); // in the middle of a long pause
    wire.tell("retry");
    await clock.advance(0);
    expect(requests).toHaveLength(before + 1);
    recover();
    await clock.advance(60);
    expect(ups).toHaveLength(1);
    await end();
  });

  test("that word counts as well while a Request is on its way that fails, and is nothing to a wire that is up", async () => {
    const { wire, clock, requests, hang, ups, end } = build();
    await vi.waitFor(() => expect(ups).toHaveLength(1));
    wire.tell("retry");
    await clock.advance(1000);
    expect(requests).toHaveLength(1);
    const release = hang();
    wire.tell("down");
    await vi.waitFor(() => expect(requests).toHaveLength(2));
    wire.tell("retry");
    release();
    // The Request hangs for its whole timeout of a second; the clock, and so the pause after it, stands still.
    await vi.waitFor(() => expect(requests).toHaveLength(3), 10_000);
    await vi.waitFor(() => expect(ups).toHaveLength(2));
    await clock.advance(1000);
    expect(requests).toHaveLength(3);
    await end();
  });
});
