import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, State } from "../../api/gen/connection_pb.js";
import { documentOf } from "./document.ts";
import { expose } from "./expose.ts";
import { counter, gauge, histogram } from "./meter.ts";
import { meters } from "./meters.ts";
import { countWires } from "./wires.ts";

const all = Object.values(meters);

function table() {
  const requests = counter("nsm_test_total", "requests", ["code"]);
  const open = gauge("nsm_test_open", "open");
  const seconds = histogram("nsm_test_seconds", "time", [], [0.1, 1]);
  const onFault: unknown[] = [];
  const options = { role: "test", onFault: (...args: unknown[]) => void onFault.push(args) };
  return {
    requests,
    open,
    seconds,
    onFault,
    options,
    expose: () => expose([requests, open, seconds], options),
  };
}

/** Lines of values; the library writes labels in any order. */
const samplesOf = (page: string) =>
  page
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) =>
      line
        .replace(/(,?)role="test"(,?)/, (_, before: string, after: string) => (before && after ? "," : ""))
        .replace("{}", ""),
    );

test("what is counted is on the page, in the text format, with the role; what was counted before nobody asked is not", async () => {
  const { requests, open, seconds, expose } = table();
  requests.inc({ code: "OK" });
  using exposition = await expose();
  requests.inc({ code: "OK" });
  requests.inc({ code: "ABORTED" }, 2);
  open.add({}, 3);
  open.add({}, -1);
  seconds.observe({}, 0.5);
  const page = await exposition.page();
  expect(exposition.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
  expect(page).toContain("# HELP nsm_test_total requests\n# TYPE nsm_test_total counter\n");
  expect(samplesOf(page)).toEqual([
    'nsm_test_total{code="OK"} 1',
    'nsm_test_total{code="ABORTED"} 2',
    "nsm_test_open 2",
    'nsm_test_seconds_bucket{le="0.1"} 0',
    'nsm_test_seconds_bucket{le="1"} 1',
    'nsm_test_seconds_bucket{le="+Inf"} 1',
    "nsm_test_seconds_sum 0.5",
    "nsm_test_seconds_count 1",
  ]);
});

test("after the end of the exposition counting goes nowhere", async () => {
  const { requests, expose } = table();
  const exposition = await expose();
  exposition[Symbol.dispose]();
  requests.inc({ code: "OK" });
  expect(await exposition.page()).not.toContain("OK");
});

test("readers are asked at each scrape, add up, and leave no series of what is gone", async () => {
  const { open, requests, expose } = table();
  using exposition = await expose();
  let value = 1;
  const one = open.track(() => [{ labels: {}, value }]);
  using two = open.track(() => Promise.resolve([{ labels: {}, value: 10 }]));
  using codes = requests.track(() => (value === 1 ? [{ labels: { code: "OK" }, value: 7 }] : []));
  void two;
  void codes;
  expect(samplesOf(await exposition.page())).toEqual(
    expect.arrayContaining(["nsm_test_open 11", 'nsm_test_total{code="OK"} 7']),
  );
  value = 2;
  expect(samplesOf(await exposition.page())).toContain("nsm_test_open 12");
  expect(await exposition.page()).not.toContain("nsm_test_total{");
  one[Symbol.dispose]();
  expect(samplesOf(await exposition.page())).toContain("nsm_test_open 10");
});

test("a reader that fails is told of, and the rest of the page is there", async () => {
  const { open, requests, onFault, expose } = table();
  using exposition = await expose();
  requests.inc({ code: "OK" });
  const fault = new Error("no kernel");
  using reader = open.track(() => Promise.reject(fault));
  void reader;
  expect(samplesOf(await exposition.page())).toContain('nsm_test_total{code="OK"} 1');
  expect(onFault).toEqual([[open, fault]]);
});

test("a gauge and a histogram that nobody has spoken of have no value, a counter begins at 0", async () => {
  const seconds = histogram("nsm_test_seconds", "time", [], [1]);
  const all = [gauge("nsm_test_open", "open"), counter("nsm_test_total", "all"), seconds];
  using exposition = await expose(all, { role: "test", onFault: () => undefined });
  expect(samplesOf(await exposition.page())).toEqual(["nsm_test_total 0"]);
  seconds.observe({}, 2);
  expect(samplesOf(await exposition.page())).toContain("nsm_test_seconds_count 1");
});

test("values of labels cannot end their line or their quotes", async () => {
  const { requests, expose } = table();
  using exposition = await expose();
  requests.inc({ code: 'a"b\\c\nd' });
  expect(samplesOf(await exposition.page())[0]).toBe('nsm_test_total{code="a\\"b\\\\c\\nd"} 1');
});

test("names are ours and unique, in base units, and say what they count", () => {
  const names = all.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  // The names that every exporter has for the process.
  const wellKnown = /^process_(cpu_seconds_total|resident_memory_bytes|open_fds|start_time_seconds)$/;
  for (const { name, kind, help, labels } of all) {
    expect(name).toMatch(wellKnown.test(name) ? wellKnown : /^nsm_[a-z]+(_[a-z]+)*$/);
    expect(name.endsWith("_total")).toBe(kind === "counter");
    expect(kind !== "histogram" || name.endsWith("_seconds")).toBe(true);
    expect(name).not.toMatch(/_(ms|millis|milliseconds|kb|mb|percent)(_|$)/);
    expect(help).not.toBe("");
    // What a client writes, and what grows without bound.
    for (const label of labels)
      expect(["service", "client", "endpoint", "connection", "name", "id"]).not.toContain(label);
  }
});

test("docs/metrics.md is what the table says", () => {
  const path = join(import.meta.dirname, "../../docs/metrics.md");
  expect(readFileSync(path, "utf8"), "run: npm run generate").toBe(documentOf(all));
});

test("wires are counted by state and mechanism, whatever a peer writes", () => {
  const wire = (state: State, ...interfaces: string[]) =>
    create(ConnectionSchema, {
      state,
      path: { pathSegments: interfaces.map((text) => ({ metrics: { client_interface: text } })) },
    });
  const counts = countWires([
    wire(State.UP, "KERNEL/a", "VXLAN/"),
    wire(State.UP, "VXLAN/x"),
    wire(State.DOWN, "KERNEL/a"),
    wire(State.UP, 'evil"\n/x'),
    wire(State.UP),
    undefined,
  ]);
  expect(counts).toEqual([
    { labels: { state: "UP", mechanism: "VXLAN" }, value: 2 },
    { labels: { state: "DOWN", mechanism: "KERNEL" }, value: 1 },
    { labels: { state: "UP", mechanism: "OTHER" }, value: 2 },
    { labels: { state: "NONE", mechanism: "OTHER" }, value: 1 },
  ]);
});
