import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { EchoSocketOptions } from "../sdk/echo-socket.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createProber } from "./prober.ts";

const wire = (source: readonly string[], target: readonly string[], id = "client-0") =>
  create(ConnectionSchema, {
    id,
    mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { name: "nsm-1" } },
    context: { ipContext: { srcIpAddrs: [...source], dstIpAddrs: [...target] } },
  });
const V4 = wire(["172.16.0.1/32"], ["172.16.0.0/32"]);
const DUAL = wire(["172.16.0.1/32", "fd00::1/128"], ["172.16.0.0/32", "fd00::/128"]);

function build() {
  const clock = createFakeClock();
  const opened: EchoSocketOptions[] = [];
  const sent: { target: string; atMs: number }[] = [];
  let answers: (target: string) => boolean = () => true;
  let refuses: (target: string) => boolean = () => false;
  let open = 0;
  const prober = createProber({
    clock,
    log: silentLogger,
    intervalMs: 50,
    timeoutMs: 1000,
    open(options, onReadable) {
      if (refuses(options.target)) throw new NsmError("INTERNAL", "eaddrnotavail", "not yet");
      opened.push(options);
      open++;
      const waiting: number[] = [];
      return {
        send(sequence) {
          sent.push({ target: options.target, atMs: clock.monotonic() });
          if (!answers(options.target)) return;
          waiting.push(sequence);
          onReadable();
        },
        replies: () => waiting.splice(0),
        [Symbol.dispose]: () => void open--,
      };
    },
  });
  let dead = 0;
  let answered = 0;
  const news = { onDead: () => void dead++, onAnswer: () => void answered++ };
  return {
    clock,
    prober,
    opened,
    sent,
    watch: (connection = V4, hasAnswered = false) => prober.watch(connection, news, hasAnswered),
    deaths: () => dead,
    firstAnswers: () => answered,
    openSockets: () => open,
    answer: (which: (target: string) => boolean) => {
      answers = which;
    },
    refuse: (which: (target: string) => boolean) => {
      refuses = which;
    },
  };
}

describe("a wire that answers", () => {
  test("gets one probe an interval, from its own address and interface", async () => {
    const { clock, watch, opened, sent, deaths } = build();
    watch();
    await clock.advance(1000);
    expect(opened).toEqual([{ source: "172.16.0.1", target: "172.16.0.0", device: "nsm-1" }]);
    expect(sent).toHaveLength(20);
    expect(deaths()).toBe(0);
  });

  test("of both families gets one probe an interval, too", async () => {
    const { clock, watch, sent } = build();
    watch(DUAL);
    await clock.advance(3000);
    expect(sent).toHaveLength(60);
    expect(new Set(sent.map(({ target }) => target))).toEqual(new Set(["172.16.0.0", "fd00::"]));
  });

  test("is dead 225 ms after its last answer at the latest, and told once", async () => {
    const { clock, watch, answer, deaths, openSockets } = build();
    watch();
    await clock.advance(1000);
    answer(() => false);
    await clock.advance(200);
    expect(deaths()).toBe(0);
    await clock.advance(25);
    expect(deaths()).toBe(1);
    expect(openSockets()).toBe(0);
    await clock.advance(5000);
    expect(deaths()).toBe(1);
    expect(clock.armed).toBe(0);
  });

  test("is not dead when two of three probes are lost, or the first eight of nine", async () => {
    const { clock, watch, answer, sent, deaths } = build();
    watch();
    await clock.advance(1000);
    const before = sent.length;
    answer(() => (sent.length - before) % 9 === 0);
    await clock.advance(10_000);
    expect(deaths()).toBe(0);
  });
});

describe("a wire that does not answer", () => {
  test("from the start is never dead, and asked less often after ten seconds", async () => {
    const { clock, watch, answer, sent, deaths } = build();
    answer(() => false);
    watch();
    await clock.advance(10_000);
    const before = sent.length;
    expect(before).toBeLessThanOrEqual(200);
    await clock.advance(10_000);
    expect(sent.length - before).toBeLessThanOrEqual(10);
    expect(deaths()).toBe(0);
  });

  test("at first tells its first answer once, when there is one", async () => {
    const { clock, watch, answer, firstAnswers } = build();
    answer(() => false);
    watch(V4, true);
    await clock.advance(150);
    expect(firstAnswers()).toBe(0);
    answer(() => true);
    await clock.advance(1000);
    expect(firstAnswers()).toBe(1);
  });

  test("again, after it has, is dead", async () => {
    const { clock, watch, answer, deaths } = build();
    answer(() => false);
    watch(V4, true);
    await clock.advance(250);
    expect(deaths()).toBe(1);
  });

  test("in one family is judged by the other", async () => {
    const { clock, watch, answer, deaths } = build();
    answer((target) => target === "172.16.0.0");
    watch(DUAL);
    await clock.advance(5000);
    expect(deaths()).toBe(0);
    answer(() => false);
    await clock.advance(225);
    expect(deaths()).toBe(1);
  });

  test("has no addresses: there is nothing to probe", async () => {
    const { clock, watch, opened } = build();
    watch(wire([], []));
    await clock.advance(5000);
    expect(opened).toEqual([]);
  });
});

test("an address that cannot be used yet is tried again", async () => {
  const { clock, watch, refuse, opened } = build();
  refuse((target) => target === "fd00::");
  watch(DUAL);
  await clock.advance(500);
  expect(opened).toHaveLength(1);
  refuse(() => false);
  await clock.advance(1000);
  expect(opened).toHaveLength(2);
});

test("wires have one timer, which ends with the last of them", async () => {
  const { clock, watch, prober, openSockets } = build();
  const first = watch();
  const second = watch(DUAL);
  await clock.advance(100);
  expect(clock.armed).toBe(1);
  expect(openSockets()).toBe(3);
  first[Symbol.dispose]();
  second[Symbol.dispose]();
  expect(openSockets()).toBe(0);
  await clock.advance(100);
  expect(clock.armed).toBe(0);
  watch();
  prober[Symbol.dispose]();
  expect(clock.armed).toBe(0);
  expect(openSockets()).toBe(0);
});
