/** What one workload can learn of another, say in its name, or take of its names: nothing. */
import { beforeAll, describe, expect, test } from "vitest";
import { MonitorConnection } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { TRUST_DOMAIN, underlay } from "../../cli/demo/topology.ts";
import { EMPTY_PATH, PATH_KEY, writeRegistrationPath } from "../../sdk/registry-path.ts";
import { TOKEN_EXPIRES_KEY, TOKEN_KEY } from "../../sdk/token.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { addressOf, segmentsOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const MANAGER_ID = `spiffe://${TRUST_DOMAIN}/nsmgr/node1`;
const REGISTRY_URL = `tcp://${underlay.node1}:5002`;
const endpoints = NetworkServiceEndpointRegistry.method;
const services = NetworkServiceRegistry.method;
/** A registration that the caller begins. */
const BEGUN = { metadata: { [PATH_KEY]: writeRegistrationPath(EMPTY_PATH) } };
const DENIED = { code: "PERMISSION_DENIED" };

let victim: Workload;
let stranger: Workload;
let wire: Connection;
const mesh = useMesh({
  nodes: 1,
  endpoints: [{ name: "near", service: "near", prefixes: "172.16.1.0/24" }],
  workloads: ["victim", "stranger"],
  pods: ["pod-victim", "pod-stranger"],
});
beforeAll(async () => {
  victim = await mesh.workload("victim", "pod-victim");
  stranger = await mesh.workload("stranger", "pod-stranger");
  wire = await victim.request(wishFor(victim, { service: "near" }));
});

describe("the monitor", () => {
  test("shows a client its own connections, without anybody's token", async () => {
    const stream = await victim.monitor({});
    const initial = await stream.waitFor(() => true);
    const [connection, ...more] = Object.values(initial.connections);
    expect(more).toEqual([]);
    expect(segmentsOf(connection ?? wire).map(({ id }) => id)).toEqual(segmentsOf(wire).map(({ id }) => id));
    expect(segmentsOf(connection ?? wire).map(({ token }) => token)).toEqual(["", "", "", ""]);
    await stream.stop();
  });

  test.for([
    ["everything", []],
    ["the victim's name", [{ name: "client" }]],
    ["the victim's own id", [{ id: "client-0" }]],
    ["an empty segment", [{}]],
  ] as const)("shows a stranger who asks for %s nothing, then or later", async ([, pathSegments]) => {
    const stream = await stranger.monitor({ pathSegments: [...pathSegments] });
    await stream.waitFor(() => true);
    await victim.close(
      await victim.request(wishFor(victim, { service: "near", id: "client-9", interfaceName: "nsm-9" })),
    );
    const own = await stranger.request(wishFor(stranger, { service: "near" }));
    await stranger.close(own);
    const ids = new Set(segmentsOf(own).map(({ id }) => id));
    await eventually(
      "the stranger's own news, or none",
      () => stream.messages.length >= (pathSegments.length > 0 ? 1 : 3),
    );
    for (const { connections } of stream.messages)
      for (const connection of Object.values(connections)) expect(ids).toContain(connection.id);
    await stream.stop();
  });

  test("refuses a stranger who names the id of a victim's segment", async () => {
    const stream = await stranger.monitor({ pathSegments: [{ id: segmentsOf(wire)[1]?.id ?? "" }] });
    expect(await stream.refused()).toMatchObject(DENIED);
  });
});

describe("a call is refused", () => {
  const inFuture = () => Math.floor(Date.now() / 1000) + 60;
  const metadata = (token: string, expiresMs = Date.now() + 60_000) => ({
    [TOKEN_KEY]: token,
    [TOKEN_EXPIRES_KEY]: new Date(expiresMs).toISOString(),
  });
  const ownClaims = () => ({ sub: stranger.spiffeId, aud: [MANAGER_ID], exp: inFuture() });
  const refusal = async (sent: Readonly<Record<string, string | null>>) => {
    const call = stranger.request(wishFor(stranger, { service: "near" }), { metadata: sent });
    await expect(call).rejects.toMatchObject(DENIED);
    expect(devicesIn(mesh.namespace("pod-stranger"))).toEqual([]);
    return await call.catch((error: unknown) => String(error));
  };

  test("with a token that names somebody else", async () => {
    const token = await stranger.token({ ...ownClaims(), sub: victim.spiffeId });
    expect(await refusal(metadata(token))).toContain(victim.spiffeId);
  });

  test("with a token that somebody else signed", async () => {
    expect(await refusal(metadata(await victim.token(ownClaims())))).toContain("prev_token_signed");
  });

  test("with a token of somebody else, copied", async () => {
    const copied = await victim.token({ ...ownClaims(), sub: victim.spiffeId });
    expect(await refusal(metadata(copied))).toContain(victim.spiffeId);
  });

  test("with a token that has expired", async () => {
    const exp = Math.floor(Date.now() / 1000) - 60;
    const token = await stranger.token({ ...ownClaims(), exp });
    expect(await refusal(metadata(token, Date.now() - 60_000))).toContain("tokens_expired");
  });

  test("with a token that has expired but says otherwise beside it", async () => {
    const token = await stranger.token({ ...ownClaims(), exp: 1 });
    expect(await refusal(metadata(token))).toContain("tokens_expired");
  });

  test("with a token for somebody else's ears", async () => {
    const token = await stranger.token({ ...ownClaims(), aud: [victim.spiffeId] });
    expect(await refusal(metadata(token))).toContain("tokens_chained");
  });

  test("with a text that is no token, or with none", async () => {
    expect(await refusal(metadata("not.a.token"))).toContain("tokens_");
    expect(await refusal({ [TOKEN_KEY]: null, [TOKEN_EXPIRES_KEY]: null })).toContain("tokens_");
  });
});

describe("a name belongs to whoever registered it first", () => {
  const squat = { name: "near", networkServiceNames: ["near"], url: "tcp://198.51.100.7:5000" };
  const owner = `spiffe://${TRUST_DOMAIN}/nse/near`;
  const record = async () => (await stranger.findEndpoints({ name: "near" }))[0];

  test("a stranger cannot change a service", async () => {
    const change = { name: "near", payload: "ETHERNET" };
    await expect(stranger.call(services.register, change, BEGUN)).rejects.toMatchObject(DENIED);
    await expect(stranger.call(services.unregister, change, BEGUN)).rejects.toMatchObject(DENIED);
  });

  /** The path of a registration that the owner seems to have begun, and the stranger to have passed on. */
  const forged = async () => {
    const first = await stranger.token({
      sub: owner,
      aud: [stranger.spiffeId],
      exp: Math.floor(Date.now() / 1000) + 60,
    });
    return {
      pathIds: [owner, stranger.spiffeId],
      metadata: { [PATH_KEY]: writeRegistrationPath({ index: 1, tokens: [first, ""] }) },
    };
  };

  test("a stranger can neither replace nor remove an endpoint, at the manager or at the registry", async () => {
    const before = await record();
    await using near = await mesh.workload("stranger", "node1"); // the registry listens on the underlay
    for (const [caller, options] of [
      [stranger, BEGUN],
      [near, { ...BEGUN, url: REGISTRY_URL }],
    ] as const) {
      await expect(caller.call(endpoints.register, squat, options)).rejects.toMatchObject(DENIED);
      await expect(caller.call(endpoints.unregister, squat, options)).rejects.toMatchObject(DENIED);
    }
    expect(await record()).toMatchObject({ url: before?.url, pathIds: before?.pathIds });
  });

  test("nor with a first token that seems to be the owner's", async () => {
    const { pathIds, metadata } = await forged();
    await using near = await mesh.workload("stranger", "node1");
    for (const [caller, options] of [
      [stranger, { metadata }],
      [near, { metadata, url: REGISTRY_URL }],
    ] as const) {
      await expect(caller.call(endpoints.register, { ...squat, pathIds }, options)).rejects.toMatchObject(
        DENIED,
      );
      await expect(caller.call(endpoints.unregister, { ...squat, pathIds }, options)).rejects.toMatchObject(
        DENIED,
      );
    }
    expect((await record())?.url).not.toBe(squat.url);
  });

  test("nor while the registry has forgotten", async () => {
    await mesh.restart("registry");
    const { pathIds, metadata } = await forged();
    await eventually(
      "the registry serves again",
      () =>
        stranger.findEndpoints({}).then(
          () => true,
          () => false,
        ),
      20_000,
    );
    await expect(stranger.call(endpoints.register, squat, BEGUN)).rejects.toMatchObject(DENIED);
    await expect(
      stranger.call(endpoints.register, { ...squat, pathIds }, { metadata }),
    ).rejects.toMatchObject(DENIED);
    await eventually(
      "the owner is registered again",
      async () => (await record().catch(() => undefined)) !== undefined,
      20_000,
    );
    expect((await record())?.url).not.toBe(squat.url);
  });

  test("a workload cannot pose as a forwarder", async () => {
    const forwarder = { name: "evil", networkServiceNames: ["forwarder"], url: "tcp://198.51.100.7:5000" };
    await expect(stranger.call(endpoints.register, forwarder, BEGUN)).rejects.toMatchObject({
      ...DENIED,
      message: expect.stringContaining(stranger.spiffeId),
    });
  });
});

describe("a workload that goes past the manager is refused", () => {
  test.for([
    ["the forwarder", (folder: string) => `unix://${folder}/node1/forwarder.sock`],
    ["an endpoint", (folder: string) => `unix://${folder}/pods/near.sock`],
  ] as const)("by %s", async ([, urlOf]) => {
    const options = { url: urlOf(mesh.folder), timeoutMs: 5000 };
    const refused = expect.objectContaining({
      code: expect.stringMatching(/^(PERMISSION_DENIED|UNAVAILABLE)$/),
    });
    await expect(stranger.request(wishFor(stranger, { service: "near" }), options)).rejects.toEqual(refused);
    await expect(stranger.close(wire, options)).rejects.toEqual(refused);
    const stream = await stranger.stream(MonitorConnection.method.monitorConnections, {}, options);
    expect(await stream.refused()).toEqual(refused);
  });

  test("by the manager's port for other nodes, since nothing proves its namespace there", async () => {
    await using near = await mesh.workload("stranger", "node1");
    const call = near.request(wishFor(near, { service: "near" }), { url: `tcp://${underlay.node1}:5001` });
    await expect(call).rejects.toMatchObject(DENIED);
  });
});

test("after all of it the victim's wire works, and ends without a trace", async () => {
  expect(await pingFrom(mesh.namespace("pod-victim"), addressOf(wire, "dst"))).toMatchObject({ received: 5 });
  await victim.close(wire);
  for (const pod of ["pod-victim", "pod-stranger", "pod-near"])
    expect(devicesIn(mesh.namespace(pod))).toEqual([]);
});
