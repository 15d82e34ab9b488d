import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createFakeClock } from "../test/support/fake-clock.ts";
import type { FakeClock } from "../test/support/fake-clock.ts";
import { until } from "../test/support/grpc.ts";
import { silentLogger } from "../sdk/log.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import { verifyJwtSvid } from "../sdk/spiffe/jwt.ts";
import { readCertificates } from "../sdk/spiffe/certificate.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import { openAuthority } from "./authority.ts";
import type { Authority } from "./authority.ts";
import type { Timing } from "./generations.ts";
import type { IssuedSvid } from "./issuer.ts";
import { openState } from "./state.ts";

const MINUTE = 60_000;
const timing: Timing = { caLifetimeMs: 100 * MINUTE, svidLifetimeMs: 10 * MINUTE, refreshHintMs: 5 * MINUTE };

let directory: string;
let clock: FakeClock;
let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
  directory = mkdtempSync(join(tmpdir(), "authority-"));
  stack.defer(() => rmSync(directory, { recursive: true }));
  clock = createFakeClock();
});
afterEach(() => stack.disposeAsync());

const file = () => join(directory, "authority.json");

async function open(more: Partial<Timing> = {}): Promise<Authority> {
  const state = await openState(directory, "a.test");
  const options = { state, timing: { ...timing, ...more }, upstream: undefined, clock, log: silentLogger };
  return stack.use(await openAuthority(options));
}

const issue = (authority: Authority) => authority.issueX509("spiffe://a.test/x", timing.svidLifetimeMs);

function verdict(authority: Authority, { certificate }: IssuedSvid): string {
  const chain = readCertificates(certificate).map(({ raw }) => raw);
  const bundles = new Map([["a.test", authority.bundle().certificates]]);
  try {
    return verifySvid(chain, bundles, clock.now()).id;
  } catch (error) {
    return error instanceof Error && "reason" in error ? String(error.reason) : String(error);
  }
}

const states = (authority: Authority) => authority.keys().map(({ state }) => state);
const sequence = (authority: Authority) => authority.bundle().sequence ?? -1n;

/** Moves the clock, and waits for what is made and written meanwhile. */
async function pass(ms: number, authority: Authority, expected: readonly string[]): Promise<void> {
  await clock.advance(ms);
  await until(`keys ${expected.join()}`, () => states(authority).join() === expected.join());
}

describe("keys", () => {
  test("are published, sign, grow old and go; the sequence grows with each change, over restarts too", async () => {
    const first = await open();
    expect(states(first)).toEqual(["signing"]);
    const began = sequence(first);
    expect(began).toBe(BigInt(clock.now()) / 1000n);
    const svid = await issue(first);

    await pass(70 * MINUTE, first, ["signing", "next"]);
    expect(sequence(first)).toBeGreaterThan(began);
    expect(first.bundle().certificates).toHaveLength(2);
    expect(first.bundle().jwtKeys).toHaveLength(2);
    const late = await issue(first);
    expect(late.issuer).toBe(svid.issuer);

    await first[Symbol.asyncDispose]();
    const second = await open();
    expect(states(second)).toEqual(["signing", "next"]);
    expect(sequence(second)).toBe(sequence(first));

    await pass(20 * MINUTE, second, ["old", "signing"]);
    const fresh = await issue(second);
    expect(fresh.issuer).not.toBe(svid.issuer);
    expect([late, fresh].map((each) => verdict(second, each))).toEqual(["svid-expired", "spiffe://a.test/x"]);
    const before = sequence(second);
    await pass(11 * MINUTE, second, ["signing"]);
    expect(sequence(second)).toBeGreaterThan(before);
    expect(verdict(second, svid)).toBe("svid-expired");
  });

  test("are the same after a restart", async () => {
    const first = await open();
    const svid = await issue(first);
    await first[Symbol.asyncDispose]();
    const second = await open();
    expect(verdict(second, svid)).toBe("spiffe://a.test/x");
    expect(formatBundle(second.bundle())).toBe(formatBundle(first.bundle()));
    expect(second.bundle().jwtKeys[0]).not.toHaveProperty("d");
  });

  test("sign certificates that do not outlive their CA, with positive serial numbers that never repeat", async () => {
    const authority = await open();
    const issued = await Promise.all(
      Array.from({ length: 20 }, () => authority.issueX509("spiffe://a.test/x", 1e10)),
    );
    const serials = issued.map(({ certificate }) => new X509Certificate(certificate).serialNumber);
    expect(new Set(serials).size).toBe(20);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/);
    for (const { notAfterMs } of issued) expect(notAfterMs).toBe(clock.now() + timing.caLifetimeMs);
  });

  test("for JWTs come and go with them", async () => {
    const authority = await open();
    const token = await authority.issueJwt("spiffe://a.test/x", ["you"]);
    const verify = () =>
      verifyJwtSvid(token, new Map([["a.test", authority.bundle().jwtKeys]]), "you", clock.now());
    expect(await verify()).toMatchObject({ expiresMs: clock.now() + 5 * MINUTE });
    const [old] = authority.keys();
    await authority.rotate(true);
    await clock.advance(1000);
    expect(await verify()).toMatchObject({ id: "spiffe://a.test/x" });
    await authority.withdraw(old?.id ?? "");
    await expect(verify()).rejects.toMatchObject({ reason: "jwt-untrusted" });
  });
});

describe("the operator", () => {
  test("has the next keys sign when all other domains know them, or at once", async () => {
    const authority = await open();
    const { issuer } = await issue(authority);
    await authority.rotate(false);
    expect(states(authority)).toEqual(["signing", "next"]);
    await clock.advance(20 * MINUTE - 1);
    expect((await issue(authority)).issuer).toBe(issuer);
    await clock.advance(1);
    expect((await issue(authority)).issuer).not.toBe(issuer);

    await authority.rotate(false);
    await authority.rotate(true);
    expect(states(authority)).toEqual(["old", "signing", "next"]);
    await clock.advance(1000);
    expect(states(authority)).toEqual(["old", "old", "signing"]);
  });

  test("withdraws old keys: nothing that they signed is valid any more, the others go on", async () => {
    const authority = await open();
    const old = await issue(authority);
    await authority.rotate(true);
    await clock.advance(1000);
    const fresh = await issue(authority);
    const before = sequence(authority);
    await authority.withdraw(old.issuer);
    expect(authority.isIssuer(old.issuer)).toBe(false);
    expect([old, fresh].map((each) => verdict(authority, each))).toEqual([
      "svid-untrusted",
      "spiffe://a.test/x",
    ]);
    expect(sequence(authority)).toBeGreaterThan(before);
    expect(readFileSync(file(), "utf8").match(/PRIVATE KEY/g)).toHaveLength(4);
  });

  test("withdraws the keys that sign: others are published and take over within a second", async () => {
    const authority = await open();
    const old = await issue(authority);
    const withdrawn = authority.withdraw(old.issuer);
    await until("others are published", () => authority.bundle().certificates.length === 2);
    expect(verdict(authority, old)).toBe("spiffe://a.test/x");
    await clock.advance(999);
    await withdrawn;
    expect(verdict(authority, old)).toBe("svid-untrusted");
    expect(verdict(authority, await issue(authority))).toBe("spiffe://a.test/x");
    expect(states(authority)).toEqual(["signing"]);
  });

  test("is told which keys there are when some are none", async () => {
    const authority = await open();
    const [keys] = authority.keys();
    await expect(authority.withdraw("abc")).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining(keys?.id ?? "?"),
    });
  });

  test("who rotates all the time is stopped before others refuse the bundle", async () => {
    const authority = await open();
    const rotate = async () => {
      await authority.rotate(true);
      await clock.advance(1000);
    };
    for (let i = 0; i < 7; i++) await rotate();
    await expect(authority.rotate(true)).rejects.toMatchObject({ reason: "too-many-keys" });
  });
});

describe("the state", () => {
  test("of version 1 is taken over: the same CA signs, the sequence begins, the file is of version 2", async () => {
    const first = await open();
    const svid = await issue(first);
    await first[Symbol.asyncDispose]();
    const [keys] = JSON.parse(readFileSync(file(), "utf8")).keys;
    const { certificate, key } = keys.ca;
    const old = { version: 1, trustDomain: "a.test", certificate, key, jwtKey: keys.jwtKey };
    writeFileSync(file(), JSON.stringify(old));
    await clock.advance(MINUTE);
    const second = await open();
    expect(verdict(second, svid)).toBe("spiffe://a.test/x");
    expect(second.keys()).toMatchObject([{ state: "signing", id: svid.issuer }]);
    expect(second.bundle().jwtKeys).toEqual(first.bundle().jwtKeys);
    expect(sequence(second)).toBeGreaterThan(sequence(first));
    expect(JSON.parse(readFileSync(file(), "utf8"))).toMatchObject({ version: 2 });
  });

  test("that was lost begins with a higher sequence", async () => {
    const first = await open();
    await first[Symbol.asyncDispose]();
    rmSync(file());
    await clock.advance(MINUTE);
    expect(sequence(await open())).toBeGreaterThan(sequence(first));
  });

  test("of a clock that was set back still grows", async () => {
    const first = await open();
    await first[Symbol.asyncDispose]();
    clock = createFakeClock(Date.UTC(2029, 0, 1));
    const second = await open();
    await second.rotate(true);
    expect(sequence(second)).toBe(sequence(first) + 1n);
  });

  test("that cannot be written changes nothing", async () => {
    const authority = await open();
    const { certificates } = authority.bundle();
    rmSync(directory, { recursive: true });
    await expect(authority.rotate(true)).rejects.toMatchObject({ reason: "bad-state" });
    expect(authority.bundle().certificates).toBe(certificates);
    expect(existsSync(directory)).toBe(false);
    mkdirSync(directory);
  });
});
