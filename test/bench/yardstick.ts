/** How fast this machine is at the moment: a bare gRPC echo under mutual TLS between two processes, on loopback. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { Client, credentials } from "@grpc/grpc-js";
import { makeAuthority } from "../support/certificates.ts";
import type { Section } from "./sections.ts";
import { median, round } from "./statistics.ts";

const FRESH = 300;
const WARM = 3000;
export const ECHO_PATH = "/bench.Echo/Echo";

/** What the echo server needs to know. */
export interface EchoSettings {
  readonly rootPem: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}

export const yardstick: Section = {
  name: "yardstick",
  async run(_, figures) {
    const authority = await makeAuthority("yardstick.nsm");
    const rootPem = [...authority.bundles.values()].flat().map(String).join("");
    const settingsOf = async (path: string): Promise<EchoSettings> => {
      const { svid } = await authority.issue(path);
      return { rootPem, keyPem: svid.privateKeyPem, certificatePem: svid.chainPem };
    };
    const server = fork(new URL("yardstick-server.ts", import.meta.url));
    try {
      server.send(await settingsOf("/server"));
      const [port]: number[] = await once(server, "message");
      const connect = opener(`localhost:${port}`, await settingsOf("/client"));
      await timings(50, () => echoOnce(connect));
      const freshMs = median(await timings(FRESH, () => echoOnce(connect)));
      const client = connect();
      await timings(500, () => echo(client));
      const warmMs = median(await timings(WARM, () => echo(client)));
      client.close();
      figures.yardstick = { freshMs: round(freshMs), warmMs: round(warmMs, 3) };
    } finally {
      server.kill("SIGKILL");
    }
  },
};

function opener(target: string, { rootPem, keyPem, certificatePem }: EchoSettings): () => Client {
  const [root, key, certificate] = [rootPem, keyPem, certificatePem].map((pem) => Buffer.from(pem));
  return () =>
    new Client(
      target,
      credentials.createSsl(root, key, certificate, { checkServerIdentity: () => undefined }),
      { "grpc.use_local_subchannel_pool": 1 },
    );
}

async function echoOnce(connect: () => Client): Promise<void> {
  const client = connect();
  await echo(client);
  client.close();
}

function echo(client: Client): Promise<void> {
  const same = (bytes: Buffer) => bytes;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(ECHO_PATH, same, same, Buffer.alloc(1000), (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

async function timings(count: number, body: () => Promise<void>): Promise<number[]> {
  const each: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await body();
    each.push(performance.now() - start);
  }
  return each;
}
