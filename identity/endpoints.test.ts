/** Authorities that federate by their bundle endpoints, and authorities below one root. */
import { once } from "node:events";
import { renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { connect as connectSocket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { KeyObject } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  caExtensions,
  makeAuthority,
  makeCa,
  makeCertificate,
  x509Of,
} from "../test/support/certificates.ts";
import type { Holder } from "../test/support/certificates.ts";
import { openIdentityBed, snapshotWith } from "../test/support/identity-bed.ts";
import type { IdentityBed } from "../test/support/identity-bed.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { X509Snapshot, X509Source } from "../sdk/spiffe/source.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import { authorityIn } from "../test/support/authority-client.ts";
import { parseRelationships } from "./relationships.ts";

let stack: AsyncDisposableStack;
let east: IdentityBed;
let west: IdentityBed;
beforeEach(() => {
  stack = new AsyncDisposableStack();
  east = stack.use(openIdentityBed("east.test"));
  west = stack.use(openIdentityBed("west.test"));
});
afterEach(() => stack.disposeAsync());

/** What a process with these bundles says of another one's identity. */
function verdict({ bundles }: X509Snapshot, { svid }: X509Snapshot): string {
  try {
    return verifySvid(
      svid.chain.map(({ raw }) => raw),
      bundles,
      Date.now(),
    ).id;
  } catch (error) {
    return error instanceof Error && "reason" in error ? String(error.reason) : String(error);
  }
}

async function portOf(bed: IdentityBed): Promise<number> {
  await bed.logged(/bundle endpoint serves/);
  const line = bed.lines.findLast((each) => each.includes("bundle endpoint serves")) ?? "";
  return Number(/:(\d+)"/.exec(line)?.[1]);
}

function writeFederation(bed: IdentityBed, list: readonly object[]): string {
  const path = join(bed.directory, "federation.yaml");
  writeFileSync(`${path}.draft`, JSON.stringify({ federation: list }));
  renameSync(`${path}.draft`, path);
  return path;
}

function initialBundle(bed: IdentityBed, { bundles }: X509Snapshot, name: string): string {
  const path = join(bed.directory, `${name}.json`);
  const certificates = bundles.get(name) ?? [];
  writeFileSync(path, formatBundle({ certificates, jwtKeys: [], sequence: 1n, refreshHintSeconds: 1 }));
  return path;
}

describe("a trust domain that the federation file names", () => {
  /** West asks east, every second. */
  async function federated(): Promise<readonly [X509Source, X509Source, object]> {
    await east.start({ NSM_IDENTITY_BUNDLE_LISTEN_ON: "tcp://127.0.0.1:0", NSM_IDENTITY_REFRESH_HINT: "1s" });
    const inEast = await east.source();
    const relationship = {
      trustDomain: "east.test",
      url: `https://127.0.0.1:${await portOf(east)}/`,
      profile: "https_spiffe",
      endpointId: "spiffe://east.test/identity",
      initialBundle: initialBundle(west, inEast.current(), "east.test"),
      leastRefreshSeconds: 1,
    };
    await west.start({ NSM_IDENTITY_FEDERATION: writeFederation(west, [relationship]) });
    return [inEast, await west.source(), relationship];
  }

  test("is trusted; its new keys are known before they sign, and keys that it withdraws count within its hint and a second", async () => {
    const [inEast, inWest] = await federated();
    const before = inEast.current();
    expect(verdict(inWest.current(), before)).toBe("spiffe://east.test/proxy/x");
    const { keys } = await authorityIn(join(east.directory, "state")).rotate(false);
    await snapshotWith(inWest, ({ bundles }) => bundles.get("east.test")?.length === 2);
    expect(inEast.current().svid).toBe(before.svid);

    const beganMs = performance.now();
    await authorityIn(join(east.directory, "state")).withdraw(keys[0]?.id ?? "");
    await snapshotWith(inWest, (snapshot) => verdict(snapshot, before) === "svid-untrusted");
    // The hint, a second, and what a busy machine adds.
    expect(performance.now() - beganMs).toBeLessThan(8000);
    const after = await snapshotWith(inEast, ({ svid }) => svid !== before.svid);
    expect(verdict(inWest.current(), after)).toBe("spiffe://east.test/proxy/x");
    expect(west.lines.filter((line) => line.includes('"level":50'))).toEqual([]);
  });

  test("is trusted as long as the file names it, over restarts too", async () => {
    const [inEast, , relationship] = await federated();
    await west.stop();
    await east.stop();
    const path = writeFederation(west, [{ ...relationship, initialBundle: undefined }]);
    await west.start({ NSM_IDENTITY_FEDERATION: path });
    const again = await west.source();
    expect(verdict(again.current(), inEast.current())).toBe("spiffe://east.test/proxy/x");
    writeFederation(west, []);
    await snapshotWith(again, ({ bundles }) => !bundles.has("east.test"));
    await west.stop();
    writeFederation(west, [{ ...relationship }]);
    await west.start();
    expect((await west.source()).current().bundles.has("east.test")).toBe(false);
  });

  test("speaks for itself alone: neither its endpoint nor its keys make it another one", async () => {
    await east.start();
    const inEast = await east.source();
    const mallory = await makeAuthority("mallory.test");
    const forged = await mallory.issue("/identity", { as: "spiffe://east.test/identity" });
    const { chainPem: cert, privateKeyPem: key } = forged.svid;
    const certificates = [x509Of(mallory.ca)];
    const document = formatBundle({ certificates, jwtKeys: [], sequence: 9n, refreshHintSeconds: 1 });
    const server = createServer({ cert, key }, (_, response) => void response.end(document));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    stack.defer(() => void server.close());
    const address = server.address();
    const port = address !== null && typeof address === "object" ? address.port : 0;
    const common = { url: `https://127.0.0.1:${port}/`, profile: "https_spiffe", leastRefreshSeconds: 1 };
    const asEast = {
      ...common,
      trustDomain: "east.test",
      endpointId: "spiffe://east.test/identity",
      initialBundle: initialBundle(west, inEast.current(), "east.test"),
    };
    await west.start({ NSM_IDENTITY_FEDERATION: writeFederation(west, [asEast]) });
    await west.logged(/not refreshed/);
    await west.federation.setBundle("mallory.test", Buffer.from(document));
    const inWest = await snapshotWith(await west.source(), ({ bundles }) => bundles.has("mallory.test"));
    expect(verdict(inWest, forged)).toBe("svid-untrusted");
    expect(verdict(inWest, inEast.current())).toBe("spiffe://east.test/proxy/x");
    expect(verdict(inWest, await mallory.issue("/x"))).toBe("spiffe://mallory.test/x");
    // What the file names, the proxy cannot take away.
    await west.federation.removeBundle("east.test");
    expect((await west.source()).current().bundles.has("east.test")).toBe(true);
  });

  test.each<[string, object, RegExp]>([
    ["twice", [{}, {}], /east\.test appears twice/],
    ["with our own name", [{ trustDomain: "west.test" }], /own one/],
    ["with a URL that is none", [{ url: "http://east.test/" }], /expected https/],
    ["without an endpoint id", [{ endpointId: undefined }], /endpointId/],
    ["with one for https_web", [{ profile: "https_web" }], /endpointId/],
    ["with a relative path", [{ initialBundle: "east.json" }], /absolute/],
    ["with a member that nobody knows", [{ hint: 5 }], /hint/],
  ])("%s is refused", (_, changes, fault) => {
    const good = {
      trustDomain: "east.test",
      url: "https://east.test/",
      profile: "https_spiffe",
      endpointId: "spiffe://east.test/x",
    };
    const list = (Array.isArray(changes) ? changes : []).map((change: object) => ({ ...good, ...change }));
    expect(() => parseRelationships(JSON.stringify({ federation: list }), "west.test")).toThrow(fault);
    expect(parseRelationships(JSON.stringify({ federation: [good] }), "west.test")).toHaveLength(1);
  });
});

describe("the own endpoint", () => {
  const askAt = async (port: number, method: string): Promise<string> => {
    const socket = connectTls({ host: "127.0.0.1", port, rejectUnauthorized: false });
    socket.write(`${method} /any?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    let text = "";
    for await (const part of socket.setEncoding("utf8")) text += String(part);
    return text;
  };

  test("answers GET and HEAD alone, at any path, without asking for a certificate", async () => {
    await east.start({ NSM_IDENTITY_BUNDLE_LISTEN_ON: "tcp://127.0.0.1:0" });
    const port = await portOf(east);
    expect(await askAt(port, "GET")).toMatch(
      /^HTTP\/1\.1 200 [^]*content-type: application\/json[^]*spiffe_sequence/i,
    );
    expect(await askAt(port, "HEAD")).toMatch(/^HTTP\/1\.1 200 [^]*\r\n\r\n$/);
    expect(await askAt(port, "POST")).toMatch(/^HTTP\/1\.1 405 /);
  });

  test("answers others while a stranger holds all the connections that he is given", async () => {
    await east.start({ NSM_IDENTITY_BUNDLE_LISTEN_ON: "tcp://127.0.0.1:0" });
    const port = await portOf(east);
    let closed = 0;
    const held = Array.from({ length: 300 }, () => {
      const socket = connectSocket({ port, host: "127.0.0.1", localAddress: "127.0.0.2" });
      return socket
        .on("error", () => undefined)
        .on("close", () => closed++)
        .resume();
    });
    stack.defer(() => held.forEach((socket) => socket.destroy()));
    await vi.waitFor(() => expect(closed).toBeGreaterThanOrEqual(300 - 256), 10_000);
    expect(await askAt(port, "GET")).toMatch(/^HTTP\/1\.1 200 /);
  });
});

describe("authorities below one root", () => {
  let root: Holder;
  beforeEach(async () => {
    root = await makeCa("CN=root");
  });

  const pemOfKey = (holder: Holder) =>
    KeyObject.from(holder.keys.privateKey).export({ type: "pkcs8", format: "pem" }).toString();
  const intermediate = (name: string) =>
    makeCertificate({ subject: `CN=${name}`, issuer: root, extensions: caExtensions(0) });

  function writeUpstream(bed: IdentityBed, ca: Holder, roots: readonly Holder[] = [root]) {
    const files = {
      NSM_IDENTITY_UPSTREAM_KEY: pemOfKey(ca),
      NSM_IDENTITY_UPSTREAM_BUNDLE: roots.map((each) => x509Of(each).toString()).join(""),
      NSM_IDENTITY_UPSTREAM_CERT: x509Of(ca).toString(),
    };
    return Object.fromEntries(
      Object.entries(files).map(([name, text]) => {
        const path = join(bed.directory, name);
        writeFileSync(path, text, { mode: 0o600 });
        return [name, path];
      }),
    );
  }

  test("verify each other's workloads: the chain carries the intermediate, the bundle is the root", async () => {
    const one = { NSM_IDENTITY_TRUST_DOMAIN: "one.test" };
    for (const bed of [east, west]) {
      const path = join(bed.directory, "registrations.yaml");
      const match = { uid: process.getuid?.(), gid: process.getgid?.() };
      const id = `spiffe://one.test/${bed === east ? "east" : "west"}/x`;
      writeFileSync(path, JSON.stringify({ registrations: [{ id, match }] }));
      await bed.start({ ...one, ...writeUpstream(bed, await intermediate(id)) });
    }
    const [inEast, inWest] = [(await east.source()).current(), (await west.source()).current()];
    expect(verdict(inWest, inEast)).toBe("spiffe://one.test/east/x");
    expect(verdict(inEast, inWest)).toBe("spiffe://one.test/west/x");
    expect(inEast.svid.chain.map(({ issuer }) => issuer)).toEqual(["CN=spiffe://one.test/east/x", "CN=root"]);
    expect(inEast.bundles.get("one.test")?.map(({ raw }) => raw)).toEqual([root.der]);
    const stranger = await (await makeAuthority("one.test")).issue("/x");
    expect(verdict(inEast, stranger)).toBe("svid-untrusted");
  });

  test("take a new intermediate as soon as its files are there, and never a half of it", async () => {
    const [first, second] = await Promise.all([intermediate("first"), intermediate("second")]);
    await east.start(writeUpstream(east, first));
    const source = await east.source();
    writeFileSync(join(east.directory, "NSM_IDENTITY_UPSTREAM_KEY"), pemOfKey(second));
    await east.logged(/"err".*does not fit.*upstream authority cannot be used/);
    expect(source.current().svid.chain[1]?.subject).toBe("CN=first");
    writeUpstream(east, second);
    const { svid } = await snapshotWith(source, (now) => now.svid.chain[1]?.subject === "CN=second");
    expect(svid.chain[1]?.issuer).toBe("CN=root");
  });

  test("take over from a CA of their own without a break", async () => {
    await east.start();
    const source = await east.source();
    const before = source.current();
    await east.stop();
    await east.start(writeUpstream(east, await intermediate("first")));
    const after = await snapshotWith(source, ({ svid }) => svid.chain.length === 2);
    expect(verdict(after, before)).toBe("spiffe://east.test/proxy/x");
    expect(verdict(after, after)).toBe("spiffe://east.test/proxy/x");
  });

  test("with files that do not fit together do not start, and say why", async () => {
    const [other, leaf] = await Promise.all([
      makeCa("CN=other"),
      makeCertificate({ issuer: root, extensions: [] }),
    ]);
    for (const [ca, roots, text] of [
      [await intermediate("x"), [other], /no path to a CA/],
      [leaf, [root], /is not a CA/],
    ] as const)
      await expect(east.start(writeUpstream(east, ca, roots))).rejects.toMatchObject({
        reason: "bad-upstream",
        message: expect.stringMatching(text),
      });
    const env = writeUpstream(east, await intermediate("x"));
    writeFileSync(join(east.directory, "NSM_IDENTITY_UPSTREAM_CERT"), "");
    await expect(east.start(env)).rejects.toThrow(/holds no certificate/);
    await vi.waitFor(() => expect(east.lines.some((line) => line.includes("serves"))).toBe(false));
  });
});
