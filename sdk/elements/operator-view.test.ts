import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MonitorScopeSelectorSchema } from "../../api/gen/connection_pb.js";
import type { ConnectionEvent } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { connectionOn } from "../../test/support/chain.ts";
import { OPERATOR, createMonitorStore } from "./monitor.ts";
import type { Viewer } from "./monitor.ts";

const ALICE = "spiffe://example.org/alice";

test("the number of a chain is shown to its owner, and to operators a hash that tells chains apart", async () => {
  const id = "0b5f8a52-3c55-4d0c-9d1c-5a3a3f7f0001";
  const store = createMonitorStore();
  const put = (key: string, mark: string) => {
    const connection = connectionOn(["client", "me"], [`${key}-0`, key]);
    connection.context = create(ConnectionContextSchema, { extraContext: { nsmChain: mark } });
    store.update(connection, ALICE);
  };
  put("1", id);
  put("2", `${id}/3`);
  const marksOf = (event: ConnectionEvent) =>
    Object.values(event.connections).map(({ context }) => context?.extraContext["nsmChain"] ?? "");
  const listen = (viewer: Viewer) => {
    const { signal } = new AbortController();
    const events = store.subscribe(create(MonitorScopeSelectorSchema), viewer, signal);
    const stream = events[Symbol.asyncIterator]();
    return async () => {
      const { value, done } = await stream.next();
      return done === true ? [] : marksOf(value);
    };
  };
  const [owner, operator] = [listen(ALICE), listen(OPERATOR)];
  expect(await owner()).toEqual([id, `${id}/3`]);
  const [first = "", second] = await operator();
  expect(first).toMatch(/^sha256:[0-9a-f]{16}$/);
  expect(second).toBe(`${first}/3`);
  put("1", id.replace("0b", "0c"));
  const [changed] = await operator();
  expect(changed).toMatch(/^sha256:/);
  expect(changed).not.toBe(first);
  expect(store.get("2")?.context?.extraContext).toEqual({ nsmChain: `${id}/3` });
});
