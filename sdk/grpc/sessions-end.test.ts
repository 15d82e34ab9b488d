import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { failureOf, openBed } from "../../test/support/grpc.ts";
import type { SessionPool } from "./sessions.ts";

test("sessions of a url are ended with their calls, whatever they are named; the next call makes a new one", async () => {
  await using bed = await openBed();
  const peers = new Set<string>();
  await bed.serve({
    service: {
      request: (_, { peer }) => {
        peers.add(peer.session);
        return Promise.resolve(create(ConnectionSchema, { id: "ok" }));
      },
    },
    monitor: async function* (_, { signal }) {
      yield create(ConnectionEventSchema);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const target = { url: bed.url() };
  const ask = async (by: SessionPool) =>
    (await by.unary(target, NetworkService.method.request, create(NetworkServiceRequestSchema))).response.id;
  const selector = create(MonitorConnection.method.monitorConnections.input);
  const method = MonitorConnection.method.monitorConnections;
  const watch = pool.stream({ ...target, key: "another name" }, method, selector);
  await watch.next();
  await ask(pool);
  pool.end("unix:///run/elsewhere.sock");
  await ask(pool);
  expect(peers.size).toBe(1);
  pool.end(target.url);
  expect(await failureOf(watch.next())).toMatchObject({ reason: "session-closed" });
  expect(await ask(pool)).toBe("ok");
  expect(peers.size).toBe(2);
});
