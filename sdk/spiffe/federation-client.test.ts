import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SpiffeWorkloadAPI } from "../../api/gen/workload_pb.js";
import { makeAuthority, makeCa, x509Of } from "../../test/support/certificates.ts";
import { makeSource } from "../../test/support/identity.ts";
import { NsmError } from "../errors.ts";
import { openPlainServer } from "../grpc/plain.ts";
import { silentLogger } from "../log.ts";
import { parseBundle } from "./bundle.ts";
import { createFederationClient, openOwnBundle } from "./federation-client.ts";

let stack: AsyncDisposableStack;
let path: string;
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), "federation-"));
  stack.defer(() => rmSync(directory, { recursive: true }));
  path = join(directory, "s");
  const unused = () => Promise.reject(new NsmError("UNIMPLEMENTED", "unused", "not in this test"));
  // oxlint-disable-next-line eslint/require-yield -- it refuses
  const unusedStream = async function* (): AsyncGenerator<never> {
    await unused();
  };
  // Like an agent of SPIRE: the Workload API and nothing else.
  stack.use(
    await openPlainServer({ path, mode: 0o600, log: silentLogger }, (add) =>
      add(SpiffeWorkloadAPI, {
        fetchX509SVID: unusedStream,
        fetchX509Bundles: unusedStream,
        fetchJWTBundles: unusedStream,
        fetchJWTSVID: unused,
        validateJWTSVID: unused,
      }),
    ),
  );
});
afterEach(() => stack.disposeAsync());

test("an authority that is not ours cannot be told whom to trust, and the message says who can", async () => {
  const client = createFederationClient({ socket: `unix://${path}` });
  for (const call of [
    client.setBundle("west.test", Buffer.from("{}")),
    client.removeBundle("west.test"),
    client.listBundles(),
  ])
    await expect(call).rejects.toMatchObject({
      code: "UNIMPLEMENTED",
      reason: "no-federation",
      message: expect.stringMatching(/SPIFFE_ENDPOINT_SOCKET.*spire-server federation/),
    });
});

test("its own bundle is read off the identity, and followed", async () => {
  const authority = await makeAuthority("east.test");
  const source = stack.use(await makeSource(authority, "/proxy"));
  const own = stack.use(
    await openOwnBundle({
      socket: `unix://${path}`,
      source,
      log: silentLogger,
      signal: new AbortController().signal,
    }),
  );
  const first = own.current();
  expect(first.trustDomain).toBe("east.test");
  expect(parseBundle(first.document).certificates.map(({ raw }) => raw)).toEqual([authority.ca.der]);
  const seen: number[] = [];
  const listener = own.onChange(({ bundle }) => seen.push(bundle.certificates.length));
  const next = x509Of(await makeCa("CN=next"));
  source.push({ bundles: new Map([["east.test", [x509Of(authority.ca), next]]]) });
  expect(seen).toEqual([2]);
  listener[Symbol.dispose]();
  source.push({ bundles: authority.bundles });
  expect(seen).toEqual([2]);
  expect(own.current().bundle.certificates).toHaveLength(1);
});

test("nobody there is another matter", async () => {
  const client = createFederationClient({ socket: `unix://${path}.gone` });
  await expect(client.listBundles()).rejects.toMatchObject({ code: "UNAVAILABLE" });
});
