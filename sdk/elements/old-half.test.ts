import { describe, expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import { silentLogger } from "../log.ts";
import type { WithEvents } from "./begin.ts";
import { closeOldHalf } from "./old-half.ts";
import type { WithNextHop } from "./target.ts";

const CALL = callBy(await makePeer("/client", 1));

function build() {
  const closed: { url: string; connection: Connection }[] = [];
  const close = Promise.withResolvers<void>();
  const recorder = createRecorder<CallContext & WithEvents & WithNextHop>();
  const hops = {
    close(hop: { url: string }, connection: Connection) {
      closed.push({ url: hop.url, connection });
      return close.promise;
    },
  };
  const service = closeOldHalf(hops, silentLogger)(recorder);
  const ask = (next: string, previous?: Connection) => {
    recorder.answer = () => {
      const answer = connectionOn(["client", "me", next], ["c", "m", `${next}-id`]);
      if (answer.path !== undefined) answer.path.index = 1;
      answer.id = "m";
      return Promise.resolve(answer);
    };
    const request = requestOn(["client", "me"], ["c", "m"]);
    if (request.connection?.path?.pathSegments[0] !== undefined)
      request.connection.path.pathSegments[0].token = "token of now";
    const context = { ...eventsOf(CALL, { previous, established: previous !== undefined }) };
    return service.request(request, { ...context, nextHop: { url: `unix:///${next}` } });
  };
  return { ask, closed, close, recorder, service };
}

describe("a connection that leads elsewhere", () => {
  test("has its old half closed where that was, as it was, with the tokens of now", async () => {
    const { ask, closed, close } = build();
    const first = await ask("a");
    first.networkServiceEndpointName = "nse-a";
    first.state = State.UP;
    await ask("b", first);
    close.resolve();
    expect(closed).toMatchObject([
      {
        url: "unix:///a",
        connection: {
          id: "m",
          networkServiceEndpointName: "nse-a",
          path: { index: 1, pathSegments: [{ token: "token of now" }, { id: "m" }, { id: "a-id" }] },
        },
      },
    ]);
  });

  test("is answered whether or not the old half ever closes", async () => {
    const { ask, closed } = build();
    const first = await ask("a");
    await expect(ask("b", first)).resolves.toMatchObject({
      path: { pathSegments: [{}, {}, { id: "b-id" }] },
    });
    expect(closed).toHaveLength(1);
  });

  test("is not troubled by an old half that fails to close", async () => {
    const { ask, close } = build();
    const first = await ask("a");
    close.reject(new Error("dead"));
    await expect(ask("b", first)).resolves.toBeDefined();
  });
});

test("a refresh closes nothing, nor does a new way that fails", async () => {
  const { ask, closed, recorder, service } = build();
  const first = await ask("a");
  await ask("a", first);
  recorder.answer = () => Promise.reject(new Error("no"));
  const asking = service.request(requestOn(["client", "me"], ["c", "m"]), {
    ...eventsOf(CALL, { previous: first, established: true }),
    nextHop: { url: "unix:///b" },
  });
  await expect(asking).rejects.toThrow("no");
  expect(closed).toEqual([]);
});

test("after a close there is no old half", async () => {
  const { ask, closed, service } = build();
  const first = await ask("a");
  await service.close(connectionOn(["client", "me"], ["c", "m"]), {
    ...eventsOf(CALL),
    nextHop: { url: "unix:///a" },
  });
  await ask("b", first);
  expect(closed).toEqual([]);
});
