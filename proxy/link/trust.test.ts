/** What a link does to the trust of its domain: with the built-in authority, and beside one that takes no bundles. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import {
  BundleSchema,
  Federation,
  ListBundlesResponseSchema,
  RemoveBundleResponseSchema,
  SetBundleResponseSchema,
} from "../../api/gen/federation_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import { failureOf } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { bundleOf } from "../../test/support/link-sides.ts";
import { systemClock } from "../../sdk/clock.ts";
import { openPlainServer } from "../../sdk/grpc/plain.ts";
import type { AddPlainService } from "../../sdk/grpc/plain.ts";
import { silentLogger } from "../../sdk/log.ts";
import { Health } from "../../api/gen/health_pb.js";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { openTrust } from "./trust.ts";

const signal = new AbortController().signal;
const east = await makeAuthority("east.nsm");
const west = await makeAuthority("west.nsm");

async function trustWith(register: (add: AddPlainService) => void) {
  const stack = new AsyncDisposableStack();
  onTestFinished(() => stack.disposeAsync());
  const folder = stack.adopt(await mkdtemp(join(tmpdir(), "nsm-trust-")), (path) =>
    rm(path, { recursive: true }),
  );
  const path = join(folder, "s");
  stack.use(await openPlainServer({ path, mode: 0o600, log: silentLogger }, register));
  const source = stack.use(await makeSource(east, "/proxy"));
  const socket = `unix://${path}`;
  const options = { source, socket, clock: systemClock, log: silentLogger, signal };
  return { source, trust: stack.use(await openTrust(options)) };
}

test("a bundle that is given is there when that is said, and gone when it is taken back", async () => {
  const given: string[] = [];
  const said: string[] = [];
  const { source, trust } = await trustWith((add) =>
    add(Federation, {
      async *watchBundle(_, { signal: left }) {
        yield create(BundleSchema, { trustDomain: "east.nsm", document: Buffer.from(bundleOf(east, 7n)) });
        await new Promise((resolve) => left.addEventListener("abort", resolve));
      },
      setBundle({ bundle }) {
        given.push(bundle?.trustDomain ?? "");
        const { certificates } = parseBundle(bundle?.document ?? "");
        // As a real one, which pushes to workloads after it has answered.
        setImmediate(() => source.push({ bundles: new Map([...east.bundles, ["west.nsm", certificates]]) }));
        return Promise.resolve(create(SetBundleResponseSchema));
      },
      removeBundle({ trustDomain }) {
        given.push(`not ${trustDomain}`);
        setImmediate(() => source.push({ bundles: east.bundles }));
        return Promise.resolve(create(RemoveBundleResponseSchema));
      },
      listBundles: () => Promise.resolve(create(ListBundlesResponseSchema)),
    }),
  );
  expect(trust.own()).toBe(bundleOf(east, 7n));
  await trust.set("west.nsm", bundleOf(west), signal).then(() => said.push(String(trust.has("west.nsm"))));
  await trust.remove("west.nsm", signal).then(() => said.push(String(trust.has("west.nsm"))));
  expect(given).toEqual(["west.nsm", "not west.nsm"]);
  expect(said).toEqual(["true", "false"]);
  await expect(trust.set("west.nsm", bundleOf(west), AbortSignal.abort(new Error("left")))).rejects.toThrow();
});

test("beside another authority, a domain that is not federated is refused with what to do, and one that is stays", async () => {
  const { source, trust } = await trustWith((add) =>
    add(Health, {
      check: () => Promise.resolve(create(Health.method.check.output)),
      async *watch() {
        yield await Promise.resolve(create(Health.method.check.output));
      },
    }),
  );
  expect(parseBundle(trust.own()).certificates.map(({ raw }) => raw)).toEqual([east.ca.der]);
  expect(await failureOf(trust.set("west.nsm", bundleOf(west), signal))).toMatchObject({
    reason: "no-federation",
    message: expect.stringContaining("spire-server federation create"),
  });
  source.push({ bundles: new Map([...east.bundles, ...west.bundles]) });
  await trust.set("west.nsm", bundleOf(west), signal);
  await trust.remove("west.nsm", signal);
  expect(trust.has("west.nsm")).toBe(true);
});
