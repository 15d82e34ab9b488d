import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { callBy } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { kernelMechanism } from "./kernel-mechanism.ts";
import { isUpName } from "./passthrough/device-names.ts";

const peer = await makePeer("/forwarder");

async function nameFor(asked: string, isOwnName?: (name: string) => boolean) {
  const element = kernelMechanism({
    netnsUrl: "inode://4/1",
    interfaceName: () => "in-chosen",
    ...(isOwnName && { isOwnName }),
  });
  const chain = element({
    request: ({ connection = create(ConnectionSchema) }) => Promise.resolve(connection),
    close: () => Promise.resolve(),
  });
  const mechanismPreferences = [{ cls: "LOCAL", type: "KERNEL", parameters: { name: asked } }];
  const connection = { id: "one", networkService: "service" };
  const request = create(NetworkServiceRequestSchema, { connection, mechanismPreferences });
  return (await chain.request(request, callBy(peer))).mechanism?.parameters["name"];
}

test("an endpoint takes the name that is asked for, and chooses one where there is none", async () => {
  expect(await nameFor("mine")).toBe("mine");
  expect(await nameFor("")).toBe("in-chosen");
});

test.each([
  "eth0",
  "lo",
  "mine",
  "out-abc",
  'in-"; flush',
  "in-/../lo",
  "in-abcdefghijklm",
  "in-a\nb",
  "in-",
])("an endpoint that acts by the names of its devices does not take %j", async (asked) => {
  expect(await nameFor(asked, isUpName)).toBe("in-chosen");
});

test("it keeps a name that it has chosen in an earlier life", async () => {
  expect(await nameFor("in-abc123", isUpName)).toBe("in-abc123");
});
