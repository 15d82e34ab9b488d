import { describe, expect, test, vi } from "vitest";
import { silentLogger } from "../../sdk/log.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { createSupply } from "./supply.ts";
import { orderFor, parseCommand, parseVariables } from "./template.ts";

function build(limit = 3, keep = false) {
  const clock = createFakeClock();
  const started: { key: string; end: (how: number | string) => void; stopped: boolean }[] = [];
  const supply = createSupply({
    start({ key }) {
      const { promise, resolve } = Promise.withResolvers<number | string>();
      const child = { key, end: resolve, stopped: false };
      started.push(child);
      return {
        pid: 100 + started.length,
        ended: promise,
        stop() {
          child.stopped = true;
          resolve("SIGTERM");
          return Promise.resolve();
        },
      };
    },
    limit,
    keep,
    clock,
    log: silentLogger,
  });
  const reasonOf = (pod: string) =>
    supply.ask(orderFor(["run", "{{.podName}}"], {}, { podName: pod })).catch((error: unknown) => {
      if (typeof error === "object" && error !== null && "reason" in error) return error.reason;
      throw error;
    });
  return { clock, started, supply, reasonOf };
}

test("one endpoint is started for all that ask for the same, and everybody is told to ask again", async () => {
  const { started, reasonOf } = build();
  expect(await Promise.all(["a", "a", "b", "a"].map(reasonOf))).toEqual(Array(4).fill("endpoint-starting"));
  expect(started.map(({ key }) => key)).toEqual(['[["run","a"],{}]', '[["run","b"],{}]']);
});

test("one that ended by itself is started again at once", async () => {
  const { started, supply, reasonOf } = build();
  await reasonOf("a");
  started[0]?.end(0);
  await vi.waitFor(() => expect(supply.running).toBe(0));
  expect(await reasonOf("a")).toBe("endpoint-starting");
  expect(started).toHaveLength(2);
});

test("one that fails rests, longer each time", async () => {
  const { clock, started, supply, reasonOf } = build();
  for (const restMs of [1300, 2600]) {
    expect(await reasonOf("a")).toBe("endpoint-starting");
    started.at(-1)?.end(1);
    await vi.waitFor(() => expect(supply.running).toBe(0));
    expect(await reasonOf("a")).toBe("endpoint-failed");
    await clock.advance(restMs);
  }
  expect(await reasonOf("a")).toBe("endpoint-starting");
  expect(started).toHaveLength(3);
});

test("no more than the limit run", async () => {
  const { started, supply, reasonOf } = build(2);
  expect(await Promise.all(["a", "b", "c"].map(reasonOf))).toEqual([
    "endpoint-starting",
    "endpoint-starting",
    "too-many-endpoints",
  ]);
  started[0]?.end(0);
  await vi.waitFor(() => expect(supply.running).toBe(1));
  expect(await reasonOf("c")).toBe("endpoint-starting");
});

test("children end with the supplier, unless they are to be kept", async () => {
  for (const keep of [false, true]) {
    const { started, supply, reasonOf } = build(3, keep);
    await reasonOf("a");
    await supply[Symbol.asyncDispose]();
    expect(started[0]?.stopped).toBe(!keep);
    expect(await reasonOf("b")).toBe("stopping");
  }
});

describe("orders", () => {
  test("a label that the client lacks is refused", () => {
    expect(() => orderFor(["run"], { NSM_NAME: "{{.podName}}" }, {})).toThrow(/podName.*needs a label/);
  });

  test("labels stay what they are: words of a command, not more words", () => {
    const order = orderFor(["run", "x-{{.a}}"], { A: '{{index . "a"}}' }, { a: "1; rm -rf / {{.b}}" });
    expect(order.command).toEqual(["run", "x-1; rm -rf / {{.b}}"]);
    expect(order.env).toEqual({ A: "1; rm -rf / {{.b}}" });
  });

  test("a label chooses neither the program nor the code that it runs", () => {
    for (const command of [
      ["{{.app}}"],
      ["/opt/{{.app}}", "nse"],
      ["sh", "-c", "echo {{.app}}"],
      ["/usr/bin/python3.12", "-c", "print({{.app}})"],
      ["setpriv", "env", "{{.app}}"],
    ])
      expect(() => parseCommand(JSON.stringify(command)), command.join(" ")).toThrow(/of a client's choice/);
    for (const name of ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "PYTHONPATH", "PERL5LIB"])
      expect(() => parseVariables(JSON.stringify({ [name]: "{{.app}}" })), name).toThrow(
        /of a client's choice/,
      );
    expect(parseCommand('["sh","-c","exec nsm nse"]')).toHaveLength(3);
    expect(parseVariables('{"PATH":"/bin","NSM_LABELS":"app:{{.app}}"}')).toHaveProperty("PATH", "/bin");
  });

  test("a label adds nothing to a list or a map of ours", () => {
    const env = parseVariables(
      '{"NSM_LABELS":"app:rare,pod:{{.pod}}","NSM_NAME":"{{index . \\"pod\\"}}","OTHER":"{{.pod}}"}',
    );
    expect(orderFor(["run"], env, { pod: "web-0.a_b", other: "a,b" }).env["NSM_LABELS"]).toBe(
      "app:rare,pod:web-0.a_b",
    );
    for (const pod of ["x,app:admin", "x:y", "a b", "é", "a\nb"])
      expect(() => orderFor(["run"], env, { pod }), pod).toThrow(
        expect.objectContaining({ code: "FAILED_PRECONDITION", reason: "label-not-plain" }),
      );
    expect(orderFor(["run"], { OTHER: "{{.pod}}" }, { pod: "a,b" }).env).toEqual({ OTHER: "a,b" });
  });

  test("a label does not become an option", () => {
    const command = parseCommand('["nsm","nse","{{.a}}","--name={{.a}}"]');
    expect(orderFor(command, {}, { a: "x" }).command).toEqual(["nsm", "nse", "x", "--name=x"]);
    expect(() => orderFor(command, {}, { a: "--inspect" })).toThrow(/would become the option/);
  });

  test("configuration that is no command and no variables is refused", () => {
    for (const text of ["nsm nse", "[]", '["a",1]', "{}"])
      expect(() => parseCommand(text)).toThrow(/JSON list/);
    for (const text of ["A:b", '{"A":1}', '{"A=B":"c"}', "[]"])
      expect(() => parseVariables(text)).toThrow(/JSON object/);
  });
});

test("what cannot even be tried is a fault like any other, and forgotten in time", async () => {
  const clock = createFakeClock();
  let tries = 0;
  await using supply = createSupply({
    start() {
      tries++;
      throw new TypeError("The argument 'args[1]' must be a string without null bytes");
    },
    limit: 3,
    keep: false,
    clock,
    log: silentLogger,
  });
  const ask = () => supply.ask(orderFor(["run", "{{.podName}}"], {}, { podName: "a\0b" }));
  await expect(ask()).rejects.toMatchObject({ reason: "endpoint-failed" });
  await expect(ask()).rejects.toMatchObject({ reason: "endpoint-failed" });
  expect(tries).toBe(1);
});
