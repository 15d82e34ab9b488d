/** The metrics of a running mesh: every daemon has them, they move, and hold nothing that a client chose. */
import { mkdtempSync, rmSync, rmdirSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { meters } from "../../sdk/metrics/meters.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { pingFrom } from "../support/wires.ts";

const DAEMONS = ["identity", "registry", "nsmgr-node1", "forwarder-node1", "one", "two", "customer"] as const;
type Daemon = (typeof DAEMONS)[number];

const folder = mkdtempSync(join(tmpdir(), "nsm-metrics-"));
afterAll(() => rmdirSync(folder)); // which no socket may be left in
const mesh = useMesh({
  nodes: 1,
  endpoints: [
    { name: "one", service: "shop", prefixes: "172.16.1.0/24" },
    { name: "two", service: "shop", prefixes: "172.16.2.0/24" },
  ],
  clients: [
    { name: "customer", services: "kernel://shop/nsm-1" },
    { name: "late", services: "kernel://shop/nsm-1", started: false },
  ],
  env: (part) => ({ NSM_METRICS_LISTEN_ON: `unix://${socketOf(part)}` }),
});

function socketOf(part: string): string {
  return join(folder, `${part}.sock`);
}

function get(part: string, path: string): Promise<{ status: number | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath: socketOf(part), path, timeout: 10_000 }, (response) => {
      let text = "";
      response.on("data", (data: Buffer) => (text += data.toString()));
      response.once("end", () => resolve({ status: response.statusCode, text }));
    })
      .once("error", reject)
      .end();
  });
}

interface Series {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

const LINE = /^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[\d.]+(?:e[-+]?\d+)?|NaN|[-+]Inf)$/;

/** Every line of a page is a comment or a value. */
async function scrape(part: Daemon): Promise<readonly Series[]> {
  const { status, text } = await get(part, "/metrics");
  expect(status).toBe(200);
  const lines = text.split("\n").filter((line) => line !== "" && !/^# (HELP|TYPE) /.test(line));
  return lines.map((line) => {
    const [, name = "", labels = "", value] = LINE.exec(line) ?? [];
    if (value === undefined) throw new Error(`${part} wrote ${line}`);
    const pairs = [...labels.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)];
    return {
      name,
      labels: new Map(pairs.map(([, key = "", text = ""]) => [key, text])),
      value: Number(value),
    };
  });
}

/** Sum of the series of that name that have those labels; undefined when there is none. */
async function valueOf(part: Daemon, name: string, labels: Readonly<Record<string, string>> = {}) {
  const fitting = (await scrape(part)).filter(
    (series) =>
      series.name === name &&
      Object.entries(labels).every(([key, value]) => series.labels.get(key) === value),
  );
  return fitting.length === 0 ? undefined : fitting.reduce((sum, { value }) => sum + value, 0);
}

test("every daemon is ready, and its page holds what docs/metrics.md lists, with its role", async () => {
  const documented = new Set(
    Object.values(meters).flatMap(({ name, kind }) =>
      kind === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
  for (const part of DAEMONS) {
    expect(await get(part, "/healthz")).toEqual({ status: 200, text: "ok\n" });
    const page = await scrape(part);
    expect(page.map(({ name }) => name).filter((name) => !documented.has(name))).toEqual([]);
    expect(new Set(page.map(({ labels }) => labels.get("role"))).size).toBe(1);
    for (const name of [
      "process_resident_memory_bytes",
      "process_open_fds",
      "nsm_event_loop_lag_seconds",
      "nsm_build_info",
    ])
      expect(
        page.map((series) => series.name),
        part,
      ).toContain(name);
  }
});

test("set-up, wires, sessions, tokens, certificates and records are counted where they are", async () => {
  for (const part of ["nsmgr-node1", "forwarder-node1", "customer"] as const) {
    expect(await valueOf(part, "nsm_wire_setup_seconds_count", { code: "OK" }), part).toBe(1);
    expect(await valueOf(part, "nsm_wires", { state: "UP", mechanism: "KERNEL" }), part).toBe(1);
    const expiry = await valueOf(part, "nsm_certificate_expiry_timestamp_seconds");
    expect(expiry).toBeGreaterThan(Date.now() / 1000);
    expect(await valueOf(part, "nsm_sessions", { side: "client" }), part).toBeGreaterThanOrEqual(1);
    expect(
      await valueOf(part, "nsm_handshakes_total", { side: "client", result: "ok" }),
    ).toBeGreaterThanOrEqual(1);
    expect(await valueOf(part, "nsm_tokens_minted_total")).toBeGreaterThanOrEqual(1);
  }
  expect(
    await valueOf("nsmgr-node1", "nsm_requests_total", { operation: "request", code: "OK" }),
  ).toBeGreaterThanOrEqual(1);
  expect(
    await valueOf("customer", "nsm_sent_requests_total", { operation: "request", code: "OK" }),
  ).toBeGreaterThanOrEqual(1);
  expect(await valueOf("nsmgr-node1", "nsm_tokens_verified_total", { result: "ok" })).toBeGreaterThanOrEqual(
    1,
  );
  expect(await valueOf("nsmgr-node1", "nsm_sessions", { side: "server" })).toBeGreaterThanOrEqual(4);
  expect(await valueOf("registry", "nsm_registry_entries", { kind: "endpoint" })).toBe(3); // with the forwarder
  expect(await valueOf("registry", "nsm_registry_watches", { kind: "endpoint" })).toBeGreaterThanOrEqual(1);
  expect(
    await valueOf("registry", "nsm_registry_calls_total", { method: "register", code: "OK" }),
  ).toBeGreaterThanOrEqual(3);
});

test("bytes and packets of a wire grow with what it carries, on both sides", async () => {
  const { peerAddresses } = await mesh.established("customer", "nsm-1");
  const packets = (side: string, direction: string) =>
    valueOf("forwarder-node1", "nsm_wire_packets_total", { side, direction });
  const before = { sent: await packets("client", "sent"), received: await packets("endpoint", "received") };
  await pingFrom(mesh.namespace("pod-customer"), peerAddresses[0]?.split("/")[0] ?? "", 10);
  await eventually("a new reading", async () => (await packets("client", "sent")) !== before.sent);
  expect(await packets("client", "sent")).toBeGreaterThanOrEqual((before.sent ?? 0) + 10);
  expect(await packets("endpoint", "received")).toBeGreaterThanOrEqual((before.received ?? 0) + 10);
  expect(await valueOf("forwarder-node1", "nsm_wire_bytes_total")).toBeGreaterThan(10 * 2 * 84);
});

test("what clients choose is in no label", async () => {
  for (const part of DAEMONS) {
    const { text } = await get(part, "/metrics");
    for (const chosen of ["customer", "shop", "nsm-1", "pod-"]) expect(text, part).not.toContain(chosen);
  }
});

test("a heal is counted with its reason and the time that it took", async () => {
  const { nse } = await mesh.established("customer", "nsm-1");
  await mesh.daemon(nse).kill();
  await eventually("the heal", async () => (await valueOf("customer", "nsm_wire_heals_total")) === 1, 30_000);
  const [heal] = (await scrape("customer")).filter(({ name }) => name === "nsm_wire_heals_total");
  const reason = heal?.labels.get("reason") ?? "";
  expect(reason).toMatch(/^(down|process-ended)$/);
  expect(await valueOf("customer", "nsm_wire_heal_seconds_count", { reason })).toBe(1);
  expect(await valueOf("customer", "nsm_wire_heal_seconds_sum", { reason })).toBeGreaterThan(0);
  expect(await valueOf("customer", "nsm_wires", { state: "UP" })).toBe(1);
  rmSync(socketOf(nse)); // who is killed leaves it
});

test("an address that is taken is a clear end at the start", async () => {
  const late = mesh.start("late", { NSM_METRICS_LISTEN_ON: `unix://${socketOf("registry")}` });
  expect(await late.ended).toBe(1);
  expect(late.log).toContainEqual(
    expect.objectContaining({ reason: "address-in-use", err: expect.stringContaining(socketOf("registry")) }),
  );
  expect((await get("registry", "/healthz")).status).toBe(200);
});
