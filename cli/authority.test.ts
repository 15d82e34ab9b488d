import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { openIdentityBed, snapshotWith } from "../test/support/identity-bed.ts";
import { parseBundle } from "../sdk/spiffe/bundle.ts";

const run = promisify(execFile);
const nsm = async (...words: readonly string[]) =>
  (await run(process.execPath, [join(import.meta.dirname, "main.ts"), ...words])).stdout;

test("the operator looks at the keys, rotates and withdraws them; workloads follow at once", async () => {
  await using bed = openIdentityBed("a.test");
  await bed.start();
  const source = await bed.source();
  const stateDir = ["--state-dir", join(bed.directory, "state")] as const;
  const list = await nsm("authority", "list", ...stateDir);
  const [, id = ""] = /^([0-9a-f]{16}) +signing/m.exec(list) ?? [];
  expect(list).toMatch(/^a\.test: 1 CA certificate, sequence \d+\n/);
  expect(JSON.parse(await nsm("authority", "list", "-o", "json", ...stateDir))).toMatchObject({
    trustDomain: "a.test",
    sequence: expect.any(Number),
    keys: [{ id, state: "signing", signsFrom: expect.any(String), notAfter: expect.any(String) }],
  });
  expect(await nsm("authority", "rotate", "--at-once", ...stateDir)).toMatch(/signing[^]*next/);
  await snapshotWith(source, ({ bundles }) => bundles.get("a.test")?.length === 2);

  const { svid } = source.current();
  await nsm("authority", "withdraw", id, ...stateDir);
  const after = await snapshotWith(source, ({ bundles }) => bundles.get("a.test")?.length === 1);
  expect(after.svid.chainPem).not.toBe(svid.chainPem);
  const document = await nsm("authority", "bundle", ...stateDir);
  expect(parseBundle(document).certificates[0]?.raw).toEqual(after.bundles.get("a.test")?.[0]?.raw);
  await expect(nsm("authority", "withdraw", id, ...stateDir)).rejects.toMatchObject({
    code: 4,
    stderr: expect.stringContaining(`no keys "${id}"`),
  });
});

test("where no authority runs, it says where it looked", async () => {
  await expect(nsm("authority", "list", "--state-dir", "/nowhere")).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/\/nowhere\/authority\.sock.*--state-dir/),
  });
});
