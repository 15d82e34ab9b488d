import { describe, expect, test } from "vitest";
import { createStore } from "./store.ts";
import type { Found } from "./registry.ts";

interface Entry {
  readonly name: string;
  readonly services: readonly string[];
  readonly version?: number;
}

function build(onMatch: () => void = () => undefined) {
  return createStore<Entry>({
    nameOf: ({ name }) => name,
    servicesOf: ({ services }) => services,
    matches: (query, entry) => {
      onMatch();
      return (
        (query.name === "" || query.name === entry.name) &&
        query.services.every((service) => entry.services.includes(service))
      );
    },
  });
}

const ANY: Entry = { name: "", services: [] };

async function list(found: AsyncIterable<Found<Entry>>): Promise<string[]> {
  const names: string[] = [];
  for await (const { entry } of found) names.push(entry.name);
  return names;
}

function watch(store: ReturnType<typeof build>, entry: Entry) {
  const stop = new AbortController();
  const iterator = store.find({ entry, watch: true }, stop.signal)[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await iterator.next();
    if (done === true) return "end";
    const { entry, deleted } = value;
    return `${deleted ? "-" : "+"}${entry.name}`;
  };
  return { next, stop };
}

describe("find", () => {
  test("by name, by service, by both, and everything", async () => {
    const store = build();
    store.put({ name: "a", services: ["x"] });
    store.put({ name: "b", services: ["x", "y"] });
    const find = (entry: Entry) => list(store.find({ entry, watch: false }, AbortSignal.timeout(10_000)));
    expect(await find({ name: "a", services: [] })).toEqual(["a"]);
    expect(await find({ name: "", services: ["x"] })).toEqual(["a", "b"]);
    expect(await find({ name: "", services: ["y", "x"] })).toEqual(["b"]);
    expect(await find({ name: "a", services: ["y"] })).toEqual([]);
    expect(await find(ANY)).toEqual(["a", "b"]);
    expect(await find({ name: "nobody", services: [] })).toEqual([]);
  });

  test("goes by the services that an entry has now", async () => {
    const store = build();
    store.put({ name: "a", services: ["x"] });
    store.put({ name: "a", services: ["y"] });
    const find = (service: string) =>
      list(
        store.find({ entry: { name: "", services: [service] }, watch: false }, AbortSignal.timeout(10_000)),
      );
    expect(await find("x")).toEqual([]);
    expect(await find("y")).toEqual(["a"]);
    store.remove("a");
    expect(await find("y")).toEqual([]);
    expect(store.size).toBe(0);
  });
});

describe("watch", () => {
  test("lists what is there, then tells of changes and of the removed entry", async () => {
    const store = build();
    store.put({ name: "a", services: ["x"] });
    const { next } = watch(store, { name: "", services: ["x"] });
    expect(await next()).toBe("+a");
    store.put({ name: "b", services: ["y"] });
    store.put({ name: "c", services: ["x"] });
    store.remove("a");
    store.remove("a");
    expect([await next(), await next()]).toEqual(["+c", "-a"]);
  });

  test("on one name is told of that name alone", async () => {
    const store = build();
    const { next } = watch(store, { name: "b", services: [] });
    const first = next();
    store.put({ name: "a", services: [] });
    store.put({ name: "b", services: [] });
    expect(await first).toBe("+b");
  });

  test("a refresh is told, too", async () => {
    const store = build();
    store.put({ name: "a", services: [] });
    const { next } = watch(store, ANY);
    await next();
    store.put({ name: "a", services: [], version: 2 });
    expect(await next()).toBe("+a");
  });

  test("on services is told once of an entry of several, and of one that leaves them", async () => {
    const store = build();
    const both = watch(store, { name: "", services: ["x", "y"] });
    const one = watch(store, { name: "", services: ["y"] });
    const told = [both.next(), one.next()];
    store.put({ name: "a", services: ["x", "y", "x"] });
    store.put({ name: "a", services: ["z", "y"] });
    store.put({ name: "a", services: ["z"] });
    expect(await Promise.all(told)).toEqual(["+a", "+a"]);
    expect(await both.next()).toBe("-a");
    expect([await one.next(), await one.next()]).toEqual(["+a", "-a"]);
  });

  test("on one service costs the entries of others nothing", () => {
    let matches = 0;
    const store = build(() => matches++);
    const watches = Array.from({ length: 1000 }, (_, i) => watch(store, { name: "", services: [`${i}`] }));
    for (const each of watches) void each.next();
    const every = watch(store, ANY);
    void every.next();
    store.put({ name: "a", services: ["7"] });
    matches = 0;
    store.put({ name: "a", services: ["8"] });
    expect(matches).toBeLessThan(10);
    for (const { stop } of [...watches, every]) stop.abort();
  });

  test("ends with its signal", async () => {
    const { next, stop } = watch(build(), ANY);
    const waiting = next();
    stop.abort();
    expect(await waiting).toBe("end");
  });

  test("a watcher that never reads does not hold up the others and is cut off", async () => {
    const store = build();
    const stuck = watch(store, ANY);
    const good = watch(store, { name: "last", services: [] });
    const [first, told] = [stuck.next(), good.next()];
    for (let i = 0; i < 12_000; i++) store.put({ name: `${i}`, services: [] });
    store.put({ name: "last", services: [] });
    expect(await told).toBe("+last");
    await first;
    const drain = async () => {
      while ((await stuck.next()) !== "end");
    };
    await expect(drain()).rejects.toMatchObject({ code: "ABORTED", reason: "slow-reader" });
  });
});
