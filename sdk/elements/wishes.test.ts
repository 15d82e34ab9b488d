import { create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { MonitorScopeSelectorSchema, State } from "../../api/gen/connection_pb.js";
import { connectionOn } from "../../test/support/chain.ts";
import { CHOICE_REMARK, OPERATOR, createMonitorStore } from "./monitor.ts";
import type { Viewer } from "./monitor.ts";
import { SOMEBODY_SERVES, wishOf } from "./wishes.ts";

const ALICE = "spiffe://example.org/alice";
const BOB = "spiffe://example.org/bob";
const EVERYTHING = create(MonitorScopeSelectorSchema);

const own = (id: string) => connectionOn(["client", "me"], [`${id}-0`, id]);

test.each([
  [State.RESELECT_REQUESTED, "endpoint-mismatch", "reselect"],
  [State.RESELECT_REQUESTED, SOMEBODY_SERVES, "retry"],
  [State.RESELECT_REQUESTED, undefined, undefined],
  [State.UP, "no-candidates", undefined],
])("state %s with the remark %s asks for %s", (state, remark, expected) => {
  const connection = own("1");
  connection.state = state;
  const manager = connection.path?.pathSegments[1];
  if (manager !== undefined && remark !== undefined) manager.metrics[CHOICE_REMARK] = remark;
  expect(wishOf(connection)).toBe(expected);
});

test("what is whispered reaches the owner's streams that understand it, and is not kept", async () => {
  const store = createMonitorStore();
  const stop = AbortSignal.timeout(10_000);
  const listen = (viewer: Viewer, reselects: boolean, spiffeId?: string) => {
    const told: string[] = [];
    void (async () => {
      for await (const { connections } of store.subscribe(EVERYTHING, viewer, stop, reselects, spiffeId))
        told.push(...Object.keys(connections));
    })();
    return told;
  };
  const alice = listen(ALICE, true);
  const others = [
    listen(ALICE, false),
    listen(BOB, true),
    listen(OPERATOR, true, "spiffe://example.org/operator/eve"),
  ];
  await vi.waitFor(() => {
    store.whisper(own("1"), ALICE);
    expect(alice).toContain("1");
  });
  expect(others).toEqual([[], [], []]);
  expect(store.get("1")).toBeUndefined();
});
