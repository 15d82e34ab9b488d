import { expect, test } from "vitest";
import type { CallContext } from "../sdk/chain.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import { createReach } from "../sdk/reach.ts";
import { callBy, connectionOn, createRecorder, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import type { WithSide } from "./side.ts";
import { refuseSilent } from "./silent-domains.ts";

const FORWARDER = callBy(await makePeer("/forwarder/one"));
const WEST: WithSide = { way: { url: "tcp://192.0.2.9:5004" }, domain: "west" };
const UNREACHABLE = new NsmError("UNAVAILABLE", "unreachable", "nobody there");

/** What proxies of other domains do: `answers` their Health, and Requests. */
function build() {
  const clock = createFakeClock();
  const state = { answers: true, request: "answers" as "answers" | "fails" | "hangs" };
  let probes = 0;
  const ended: string[] = [];
  let answerLate: () => void = () => undefined;
  const reach = createReach({
    clock,
    log: silentLogger,
    probe: () => {
      probes++;
      return state.answers ? Promise.resolve() : new Promise((resolve) => (answerLate = resolve));
    },
  });
  const recorder = createRecorder<CallContext & WithSide>();
  const { answer } = recorder;
  recorder.answer = (call, ctx) => {
    if (state.request === "answers") return answer(call, ctx);
    if (state.request === "fails") return Promise.reject(UNREACHABLE);
    return new Promise((_, reject) => {
      const fail = () => reject(new Error("aborted"));
      if (ctx.signal.aborted) fail();
      ctx.signal.addEventListener("abort", fail, { once: true });
    });
  };
  const element = refuseSilent(reach, ({ url }) => void ended.push(url))(recorder);
  return {
    clock,
    element,
    state,
    recorder,
    probes: () => probes,
    /** Whose sessions were ended. */
    ended,
    answerLate: () => answerLate(),
    /** The reason of its refusal; undefined when it is answered, "waits" while neither. */
    ask: async (side: WithSide, withinMs = 0) => {
      let outcome: string | undefined = "waits";
      element.request(requestOn(["forwarder", "proxy"]), { ...FORWARDER, ...side }).then(
        () => (outcome = undefined),
        (error: unknown) => (outcome = error instanceof NsmError ? error.reason : String(error)),
      );
      await clock.advance(withinMs);
      return outcome;
    },
  };
}

test("a link that is gone says so itself, and nobody is asked for a sign of life", async () => {
  const { element, recorder, probes } = build();
  const gone = new NsmError("UNAVAILABLE", "domain-silent", "domain west: it is not linked any more");
  recorder.answer = () => Promise.reject(gone);
  const asked = element.request(requestOn(["forwarder", "proxy"]), { ...FORWARDER, ...WEST });
  await expect(asked).rejects.toBe(gone);
  expect(probes()).toBe(0);
});

test("a domain that says nothing is given up after half a second, and then nearly at once, until it answers", async () => {
  const { ask, state, recorder, clock } = build();
  Object.assign(state, { answers: false, request: "hangs" });
  expect(await ask(WEST, 499)).toBe("waits");
  await clock.advance(1);
  expect(await ask(WEST, 99)).toBe("waits");
  await clock.advance(1);
  expect(await ask(WEST, 100)).toBe("domain-silent");
  expect(recorder.calls).toHaveLength(1); // the first one
  Object.assign(state, { answers: true, request: "answers" });
  await clock.advance(4000); // the question that nobody answered is over
  expect(await ask(WEST)).toBeUndefined();
});

test("sessions with it are ended a second later, once, unless it has been heard by then", async () => {
  const { ask, state, clock, ended } = build();
  Object.assign(state, { answers: false, request: "hangs" });
  const outcomes = [await ask(WEST, 500), await ask(WEST, 600)];
  expect(outcomes).toEqual(["domain-silent", "domain-silent"]);
  await clock.advance(399);
  expect(ended).toEqual([]);
  await clock.advance(1);
  expect(ended).toEqual([WEST.way?.url]);
  await clock.advance(10_000);
  expect(ended).toHaveLength(1);
});

test("one that is only slow keeps its sessions, and is asked again", async () => {
  const { ask, state, clock, ended, answerLate } = build();
  Object.assign(state, { answers: false, request: "hangs" });
  expect(await ask(WEST, 500)).toBe("domain-silent");
  await clock.advance(900);
  answerLate();
  Object.assign(state, { answers: true, request: "answers" });
  await clock.advance(10_000);
  expect(ended).toEqual([]);
  expect(await ask(WEST)).toBeUndefined();
});

test("a domain that takes its time and shows that it lives is waited for", async () => {
  const { ask, state } = build();
  state.request = "hangs";
  expect(await ask(WEST, 10_000)).toBe("waits");
});

test("who is not reached there is told from who is not reached at all", async () => {
  const { ask, state } = build();
  state.request = "fails";
  expect(await ask(WEST)).toBe("unreachable");
  state.answers = false;
  expect(await ask(WEST, 350)).toBe("domain-silent");
});

test("what stays in this domain is nobody's affair here", async () => {
  const { ask, state, probes } = build();
  Object.assign(state, { answers: false, request: "fails" });
  expect(await ask({ way: undefined }, 1000)).toBe("unreachable");
  expect(await ask({ way: { url: "tcp://192.0.2.1:5001" } }, 1000)).toBe("unreachable");
  expect(probes()).toBe(0);
});

test("a domain that has endpoints behind other proxies, too, is not said to be silent as a whole", async () => {
  const { ask, state } = build();
  Object.assign(state, { answers: false, request: "hangs" });
  expect(await ask({ ...WEST, isSpread: true }, 500)).toBe("hop-lost");
  expect(await ask({ ...WEST, isSpread: true }, 100)).toBe("hop-lost");
});

test("a Close to a domain that says nothing is given up soon, and is passed on all the same", async () => {
  const { element, state, clock, recorder } = build();
  Object.assign(state, { answers: false, request: "hangs" });
  const outcomes: string[] = [];
  const close = () => {
    element.close(connectionOn(["forwarder", "proxy"]), { ...FORWARDER, ...WEST }).then(
      () => outcomes.push("closed"),
      () => outcomes.push("given up"),
    );
  };
  close();
  await clock.advance(499);
  expect(outcomes).toEqual([]);
  await clock.advance(1);
  expect(outcomes).toEqual(["given up"]);
  close();
  await clock.advance(0);
  expect(outcomes).toEqual(["given up", "given up"]);
  expect(recorder.calls.map(({ kind }) => kind)).toEqual(["close", "close"]);
});
