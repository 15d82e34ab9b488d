/** The half of a chain behind an endpoint, when its next hop dies, or serves it no more. */
import { create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { ConnectionSchema, State } from "../../api/gen/connection_pb.js";
import { CHOICE_REMARK } from "../../sdk/elements/monitor.ts";
import { NsmError } from "../../sdk/errors.ts";
import { SOMEBODY_SERVES } from "../../sdk/elements/wishes.ts";
import { meters } from "../../sdk/metrics/meters.ts";
import { buildLink as build, markOf } from "../../test/support/link.ts";

test("a next hop that is down is replaced here, and the hop before hears of it only when something changed for it", async () => {
  const { bed, ask } = build();
  const first = await ask();
  const [[id, tell] = ["", () => undefined]] = bed.followers;
  bed.next = "gateway-2";
  tell({ kind: "down" });
  const behind = () => bed.store.get("up-1")?.path?.pathSegments.at(-1)?.name;
  await vi.waitFor(() => expect(behind()).toBe("gateway-2"));
  expect(bed.requests).toHaveLength(2);
  expect(bed.followers.size).toBe(1);
  expect(bed.requests[1]?.connection).toMatchObject({
    id,
    state: State.RESELECT_REQUESTED,
    networkServiceEndpointName: "",
  });
  expect(bed.requests[1]?.connection?.mechanism).toBeUndefined();
  expect(markOf(bed.requests[1]?.connection)).toBe(`${markOf(first)}/1`);
  expect(bed.store.get("up-1")?.state).toBe(State.UP);

  bed.address = "10.9.9.9/32";
  bed.followers.get(id)?.({ kind: "down" });
  await vi.waitFor(() => expect(bed.store.get("up-1")?.state === State.REFRESH_REQUESTED).toBe(true));
  expect(bed.store.get("up-1")?.context?.ipContext?.srcIpAddrs).toEqual(["10.9.9.9/32"]);
});

test("when the matches lead elsewhere it moves, once, and a failure leaves all as it was", async () => {
  const { bed, ask } = build();
  await ask();
  const [[id, tell] = ["", () => undefined]] = bed.followers;
  const wanted = create(ConnectionSchema, {
    state: State.RESELECT_REQUESTED,
    path: { index: 1, pathSegments: [{}, {}] },
  });
  tell({ kind: "update", connection: wanted });
  const [, manager] = wanted.path?.pathSegments ?? [];
  if (manager !== undefined) manager.metrics[CHOICE_REMARK] = "endpoint-mismatch";
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  tell({ kind: "update", connection: wanted });
  await vi.waitFor(() => expect(bed.requests).toHaveLength(2));
  expect(bed.requests[1]?.connection).toMatchObject({ id, state: State.RESELECT_REQUESTED });
  bed.failure = undefined;
  await ask("up-1", () => undefined, { established: true });
  expect(bed.requests[2]?.connection).toMatchObject({
    networkServiceEndpointName: "gateway",
    state: State.UP,
  });
});

test("while nobody serves, the manager's word that somebody does ends the pause", async () => {
  const { bed, ask } = build();
  await ask();
  const [[, tell] = ["", () => undefined]] = bed.followers;
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  tell({ kind: "down" });
  await bed.clock.advance(1000);
  bed.failure = undefined;
  bed.next = "gateway-2";
  const asked = bed.requests.length;
  const connection = create(ConnectionSchema, {
    state: State.RESELECT_REQUESTED,
    path: { index: 1, pathSegments: [{}, { metrics: { [CHOICE_REMARK]: SOMEBODY_SERVES } }] },
  });
  tell({ kind: "update", connection });
  await vi.waitFor(() => expect(bed.requests.length > asked).toBe(true)); // the clock stands still
  expect(bed.requests.at(-1)?.connection?.state).toBe(State.RESELECT_REQUESTED);
});

test("heals of the half behind are counted by their reason", async () => {
  const counted: unknown[] = [];
  const note = (labels: object, value: number) => void counted.push([...Object.values(labels), value]);
  using heals = meters.heals.connect({ add: note, observe: note });
  void heals;
  const { bed, ask } = build();
  await ask();
  const [[, tell] = ["", () => undefined]] = bed.followers;
  tell({ kind: "down" });
  await vi.waitFor(() => expect(counted).toEqual([["down", 1]]));
  await bed.clock.advance(600_000);
  await ask("up-1", () => undefined, { established: true });
  expect(counted).toEqual([
    ["down", 1],
    ["lease", 1],
  ]);
});

test("what the service does not lead to any more is left at once", async () => {
  const { bed, ask } = build();
  await ask();
  bed.refuseNamed = new NsmError("NOT_FOUND", "endpoint-mismatch", "the matches lead elsewhere");
  bed.next = "gateway-2";
  await ask("up-1", () => undefined, { established: true });
  expect(bed.requests.map(({ connection }) => connection?.networkServiceEndpointName)).toEqual([
    "",
    "gateway",
    "",
  ]);
  expect(bed.requests[2]?.connection?.state).toBe(State.RESELECT_REQUESTED);
});

test("without any next hop for ten seconds it is down itself", async () => {
  const { bed, ask } = build();
  await ask();
  const [[, tell] = ["", () => undefined]] = bed.followers;
  bed.failure = new NsmError("NOT_FOUND", "no-candidates", "none");
  tell({ kind: "down" });
  await bed.clock.advance(200);
  expect(bed.requests.length).toBeGreaterThanOrEqual(3);
  expect(bed.store.get("up-1")?.state).toBe(State.UP);
  await bed.clock.advance(13_000);
  await vi.waitFor(() => expect(bed.store.get("up-1")?.state === State.DOWN).toBe(true));
});
