import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { makeAuthority, makeCa, x509Of } from "../test/support/certificates.ts";
import type { TestAuthority } from "../test/support/certificates.ts";
import { openIdentityBed, snapshotWith } from "../test/support/identity-bed.ts";
import type { IdentityBed } from "../test/support/identity-bed.ts";
import { silentLogger } from "../sdk/log.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { Bundle } from "../sdk/spiffe/bundle.ts";
import { openOwnBundle } from "../sdk/spiffe/federation-client.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import { fetchJwtSvid, openJwtBundles } from "../sdk/spiffe/workload-api.ts";
import { verifyJwtSvid } from "../sdk/spiffe/jwt.ts";

let east: IdentityBed;
let other: TestAuthority;
let stack: AsyncDisposableStack;
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  east = stack.use(openIdentityBed("east.test"));
  other = await makeAuthority("west.test");
});
afterEach(() => stack.disposeAsync());

function documentOf(change: Partial<Bundle> = {}): Buffer {
  const certificates = [x509Of(other.ca)];
  return Buffer.from(
    formatBundle({ certificates, jwtKeys: [], sequence: 5n, refreshHintSeconds: undefined, ...change }),
  );
}

const { signal } = new AbortController();

async function verdictOfWest(source: Awaited<ReturnType<IdentityBed["source"]>>): Promise<string> {
  const { svid } = await other.issue("/x");
  const chain = svid.chain.map(({ raw }) => raw);
  return verifySvid(chain, source.current().bundles, Date.now()).id;
}

test("a bundle that is set reaches open streams at once, survives a restart, and is gone when it is removed", async () => {
  await east.start();
  const source = await east.source();
  await expect(verdictOfWest(source)).rejects.toMatchObject({ reason: "svid-unknown-trust-domain" });
  await east.federation.setBundle("west.test", documentOf());
  await snapshotWith(source, ({ bundles }) => bundles.has("west.test"));
  expect(await verdictOfWest(source)).toBe("spiffe://west.test/x");

  await east.stop();
  const file = join(east.directory, "state/federation.json");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await east.start();
  const again = await east.source();
  expect(await verdictOfWest(again)).toBe("spiffe://west.test/x");
  expect(
    (await east.federation.listBundles()).map((each) => [each.trustDomain, each.bundle.sequence]),
  ).toEqual([["west.test", 5n]]);

  await east.federation.removeBundle("west.test");
  await snapshotWith(again, ({ bundles }) => !bundles.has("west.test"));
  await expect(verdictOfWest(again)).rejects.toMatchObject({ reason: "svid-unknown-trust-domain" });
  expect(await east.federation.listBundles()).toEqual([]);
  await east.federation.removeBundle("west.test");
});

test("a document without keys withdraws everything; another change of the own SVID is not needed", async () => {
  await east.start();
  const source = await east.source();
  const { svid } = source.current();
  await east.federation.setBundle("west.test", documentOf());
  await snapshotWith(source, ({ bundles }) => bundles.has("west.test"));
  await east.federation.setBundle("west.test", documentOf({ sequence: 6n, certificates: [] }));
  const { svid: after } = await snapshotWith(source, ({ bundles }) => !bundles.has("west.test"));
  expect(after.chainPem).toBe(svid.chainPem);
});

describe("a bundle is refused", () => {
  test.each<[string, string, () => Buffer | string, string]>([
    ["of the own trust domain", "east.test", () => documentOf(), "own-trust-domain"],
    ["of no trust domain", "West.test", () => documentOf(), "bad-trust-domain"],
    ["that is no document", "west.test", () => "{}", "bad-bundle"],
    ["with too many bytes", "west.test", () => " ".repeat(1024 * 1024), "resource-exhausted"],
  ])("%s", async (_, name, document, reason) => {
    await east.start();
    await expect(east.federation.setBundle(name, Buffer.from(document()))).rejects.toMatchObject({ reason });
    expect(await east.federation.listBundles()).toEqual([]);
  });

  test("whose sequence goes backwards, with an alarm in the log; also after a restart", async () => {
    await east.start();
    await east.federation.setBundle("west.test", documentOf());
    const older = documentOf({ sequence: 4n, certificates: [] });
    const backwards = { code: "FAILED_PRECONDITION", reason: "sequence-backwards" };
    await expect(east.federation.setBundle("west.test", older)).rejects.toMatchObject(backwards);
    await east.logged(/"level":50.*west\.test.*old bundle/);
    await east.stop();
    await east.start();
    await expect(east.federation.setBundle("west.test", older)).rejects.toMatchObject(backwards);
    expect(await verdictOfWest(await east.source())).toBe("spiffe://west.test/x");
  });

  test("that would leave no room for the message that all workloads get", async () => {
    await east.start();
    const cas = await Promise.all(
      Array.from({ length: 60 }, (_, i) => makeCa(`CN=${i}${"x".repeat(3600)}`, { keys: other.ca.keys })),
    );
    const document = documentOf({ certificates: cas.map(x509Of) });
    await east.federation.setBundle("one.test", document);
    await expect(east.federation.setBundle("two.test", document)).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "too-many-bundles",
    });
    expect((await east.source()).current().bundles.size).toBe(2);
  });
});

test("only proxies may decide whom to trust", async () => {
  east.register("/nsmgr/node1");
  await east.start();
  const denied = { code: "PERMISSION_DENIED", reason: "not-federation" };
  await expect(east.federation.setBundle("west.test", documentOf())).rejects.toMatchObject(denied);
  await expect(east.federation.removeBundle("west.test")).rejects.toMatchObject(denied);
  await expect(east.federation.listBundles()).rejects.toMatchObject(denied);
  const source = await east.source();
  const watching = openOwnBundle({ socket: east.socket, source, log: silentLogger, signal, waitMs: 500 });
  await expect(watching).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
});

test("what the proxy hears of its own bundle makes the other domain trust it, JWTs as well", async () => {
  const west = stack.use(openIdentityBed("west.test"));
  await Promise.all([east.start(), west.start()]);
  const [inEast, inWest] = await Promise.all([east.source(), west.source()]);
  const own = stack.use(
    await openOwnBundle({ socket: east.socket, source: inEast, log: silentLogger, signal }),
  );
  const { trustDomain, document } = own.current();
  expect(trustDomain).toBe("east.test");
  const keys = stack.use(await openJwtBundles({ socket: west.socket, log: silentLogger, signal }));
  await west.federation.setBundle(trustDomain, document);

  const { bundles } = await snapshotWith(inWest, (snapshot) => snapshot.bundles.has("east.test"));
  const chain = inEast.current().svid.chain.map(({ raw }) => raw);
  expect(verifySvid(chain, bundles, Date.now()).id).toBe("spiffe://east.test/proxy/x");
  const { token } = await fetchJwtSvid({ socket: east.socket, signal }, ["west"]);
  await vi.waitFor(() => expect(keys.current().has("east.test")).toBe(true), { timeout: 5000 });
  expect(await verifyJwtSvid(token, keys.current(), "west", Date.now())).toMatchObject({
    id: "spiffe://east.test/proxy/x",
  });
});

test("a damaged file is named, and nothing is overwritten", async () => {
  await east.start();
  await east.federation.setBundle("west.test", documentOf());
  await east.stop();
  const file = join(east.directory, "state/federation.json");
  writeFileSync(file, readFileSync(file, "utf8").slice(0, 100));
  await expect(east.start()).rejects.toMatchObject({
    reason: "bad-state",
    message: expect.stringContaining(file),
  });
  expect(readFileSync(file, "utf8")).toHaveLength(100);
});
