import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { silentLogger } from "../log.ts";
import { descriptorCount, until } from "../../test/support/grpc.ts";
import { openMetrics } from "./serve.ts";

const options = { listenOn: "tcp://127.0.0.1:0", role: "nsmgr", version: "1.2.3", log: silentLogger };
const open = async (listenOn = options.listenOn) => {
  const server = await openMetrics({ ...options, listenOn });
  onTestFinished(() => server[Symbol.asyncDispose]());
  return { server, url: server.address.replace("tcp", "http") };
};

test("/metrics is a page of metrics, with the process's own", async () => {
  const { url } = await open();
  const response = await fetch(`${url}/metrics`);
  const page = await response.text();
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  expect(page).toMatch(/^nsm_build_info\{(?=.*version="1\.2\.3")(?=.*node="v24\.).*role="nsmgr".*\} 1$/m);
  expect(page).toMatch(/^process_resident_memory_bytes\{role="nsmgr"\} \d{7,}$/m);
  expect(page).toMatch(/^process_open_fds\{role="nsmgr"\} \d+$/m);
  expect(page).toMatch(/^nsm_event_loop_lag_seconds\{(?=.*quantile="0\.99").*\} [\d.e-]+$/m);
});

test("/healthz says whether the daemon has started", async () => {
  const { server, url } = await open();
  expect((await fetch(`${url}/healthz`)).status).toBe(503);
  server.ready();
  expect((await fetch(`${url}/healthz?x=1`)).status).toBe(200);
});

test.for([
  ["GET", "/", 404],
  ["GET", "/metrics/", 404],
  ["GET", "/metrics/../healthz", 503], // what fetch makes of it
  ["POST", "/metrics", 405],
  ["DELETE", "/healthz", 405],
  ["HEAD", "/metrics", 200],
] as const)("%s %s is %d", async ([method, path, status]) => {
  const { url } = await open();
  const response = await fetch(url + path, { method });
  expect(response.status).toBe(status);
  expect((await response.text()) === "").toBe(method === "HEAD");
});

test("a header that is too long, and what is no HTTP, are refused", async () => {
  const { url } = await open();
  const { status } = await fetch(`${url}/healthz`, { headers: { x: "y".repeat(10_000) } });
  expect(status).toBe(431);
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.end("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const answer = await once(socket, "data");
  expect(String(answer[0])).toMatch(/^HTTP\/1\.1 400 /);
});

test("more than 32 connections are closed at once, and make room when they end", async () => {
  const { url } = await open();
  const port = Number(new URL(url).port);
  const silent = Array.from({ length: 32 }, () => connect(port, "127.0.0.1"));
  await Promise.all(silent.map((socket) => once(socket, "connect")));
  await until(
    "the 33rd is closed",
    async () => (await fetch(`${url}/healthz`).catch(() => undefined)) === undefined,
  );
  for (const socket of silent) socket.destroy();
  const answers = async () => (await fetch(`${url}/healthz`).catch(() => undefined))?.status === 503;
  await until("there is room", answers);
  expect(await answers()).toBe(true);
});

test("a unix socket serves, too, and is gone afterwards; so is every descriptor", async () => {
  const folder = mkdtempSync(join(tmpdir(), "metrics-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const socketPath = join(folder, "metrics.sock");
  const before = await descriptorCount();
  const server = await openMetrics({ ...options, listenOn: `unix://${socketPath}` });
  const status = await new Promise((resolve) => {
    request({ socketPath, path: "/healthz" }, (response) => {
      response.resume().once("end", () => resolve(response.statusCode));
    }).end();
  });
  expect(status).toBe(503);
  const silent = connect(socketPath);
  await once(silent, "connect");
  await server[Symbol.asyncDispose]();
  await once(silent, "close");
  expect(existsSync(socketPath)).toBe(false);
  await until("no descriptor is left", async () => (await descriptorCount()) <= before);
});

test("an address where somebody listens is an error that names it", async () => {
  const { server } = await open();
  await expect(openMetrics({ ...options, listenOn: server.address })).rejects.toMatchObject({
    code: "ALREADY_EXISTS",
    reason: "address-in-use",
    message: expect.stringContaining(server.address),
  });
});
