import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { systemClock } from "./clock.ts";
import { createTokenMinter } from "./token.ts";
import { failureOf, openBed } from "../test/support/grpc.ts";
import { createManager } from "./manager-client.ts";

test("a Close takes no longer than a daemon has to stop, whatever a Request may take", async () => {
  await using bed = await openBed();
  await bed.serve({ service: { close: () => new Promise(() => undefined) } });
  const manager = createManager({
    pool: bed.pool(await bed.source("/client")),
    target: { url: bed.url() },
    minter: createTokenMinter({ clock: systemClock }),
    clock: systemClock,
    requestTimeoutMs: 15_000,
  });
  const startMs = performance.now();
  const closing = manager.close(create(ConnectionSchema), new AbortController().signal);
  expect((await failureOf(closing)).code).toBe("DEADLINE_EXCEEDED");
  expect(performance.now() - startMs).toBeLessThan(10_000); // a Request may take longer
});
