import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import { silentLogger as log } from "../sdk/log.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { encryptedOnly } from "./encrypted-only.ts";
import type { WithSide } from "./side.ts";

const mechanism = (type: string, cls = "REMOTE") => create(MechanismSchema, { cls, type });
const FORWARDER = await makePeer("/forwarder/one");
const PROXY = await makePeer("/nsmgr-proxy/west");

interface Asked {
  readonly by?: "forwarder" | "proxy";
  readonly offers?: readonly string[];
  readonly has?: string;
  readonly answered?: string;
  readonly unencryptedDomains?: readonly string[];
  /** The endpoint is one of this domain that is registered elsewhere. */
  readonly isHome?: boolean;
}

/** What the next hop was asked with, and what came of it. */
async function ask({ by = "forwarder", isHome = false, ...asked }: Asked) {
  const recorder = createRecorder<CallContext & WithSide>();
  const offers: string[][] = [];
  recorder.answer = ({ connection }) => {
    connection.mechanism = mechanism(asked.answered ?? "WIREGUARD");
    return Promise.resolve(connection);
  };
  const seen: typeof recorder = {
    ...recorder,
    request(request, ctx) {
      offers.push(request.mechanismPreferences.map(({ type }) => type));
      return recorder.request(request, ctx);
    },
  };
  const service = encryptedOnly({
    side: {
      isForwarder: (id) => id.includes("/forwarder/"),
      peers: { domainOf: (id) => (id.includes("/nsmgr-proxy/") ? "west" : undefined) },
      remote: {
        isSpread: () => false,
        registered: () => (isHome ? { url: "tcp://192.0.2.9:5001", services: [] } : undefined),
        find: () => Promise.resolve(undefined),
      },
    },
    unencryptedDomains: asked.unencryptedDomains ?? [],
    log,
  })(seen);
  const request = requestOn(["client", "proxy"]);
  request.mechanismPreferences = (asked.offers ?? []).map((type) => mechanism(type));
  if (request.connection !== undefined) {
    request.connection.networkServiceEndpointName = "nse@west";
    if (asked.has !== undefined) request.connection.mechanism = mechanism(asked.has);
  }
  const way = by === "forwarder" ? { url: "tcp://203.0.113.1:5004" } : undefined;
  const ctx = { ...callBy(by === "forwarder" ? FORWARDER : PROXY), way };
  const outcome = await service.request(request, ctx).then(
    (response) => response.mechanism?.type,
    (error: unknown) => error,
  );
  return { offers, outcome, closes: recorder.calls.filter(({ kind }) => kind === "close").length };
}

const REFUSED = {
  code: "FAILED_PRECONDITION",
  reason: "unencrypted",
  message: expect.stringContaining("west"),
};

test.for(["forwarder", "proxy"] as const)("of what a %s offers only what encrypts goes on", async (by) => {
  const { offers, outcome } = await ask({ by, offers: ["VXLAN", "WIREGUARD", "KERNEL", "IPSEC"] });
  expect(offers).toEqual([["WIREGUARD", "IPSEC"]]);
  expect(outcome).toBe("WIREGUARD");
});

test.for([{ offers: ["VXLAN"] }, { has: "VXLAN" }, { has: "VXLAN", offers: ["WIREGUARD"] }])(
  "a Request with nothing else is refused before anybody is asked: %o",
  async (asked) => {
    for (const by of ["forwarder", "proxy"] as const) {
      const { offers, outcome } = await ask({ by, ...asked });
      expect(outcome).toMatchObject(REFUSED);
      expect(offers).toEqual([]);
    }
  },
);

test("what is no tunnel does not cross, whatever it is called", async () => {
  const request = requestOn(["client", "proxy"]);
  request.mechanismPreferences = [mechanism("WIREGUARD", "LOCAL")];
  const service = encryptedOnly({
    side: {
      isForwarder: () => false,
      peers: { domainOf: () => undefined },
      remote: { isSpread: () => false, registered: () => undefined, find: () => Promise.resolve(undefined) },
    },
    unencryptedDomains: [],
    log,
  })(createRecorder());
  const call = { ...callBy(PROXY), way: undefined };
  await expect(service.request(request, call)).rejects.toMatchObject({ reason: "unencrypted" });
});

test.for(["VXLAN", "KERNEL"])("an answer with %s is refused, and closed behind", async (answered) => {
  for (const by of ["forwarder", "proxy"] as const) {
    const { outcome, closes } = await ask({ by, offers: ["WIREGUARD"], answered });
    expect(outcome).toMatchObject(REFUSED);
    expect(closes).toBe(1);
  }
});

test.for([["west"], ["example.org"], ["*"]])(
  "VXLAN passes where the operator trusts %s",
  async ([domain = ""]) => {
    const unencryptedDomains = ["east", domain];
    const incoming = await ask({ by: "proxy", offers: ["VXLAN"], answered: "VXLAN", unencryptedDomains });
    expect(incoming.outcome).toBe("VXLAN");
  },
);

test("the name of an endpoint says which domain is trusted on the way out", async () => {
  const vxlan = { offers: ["VXLAN"], answered: "VXLAN" };
  expect((await ask({ ...vxlan, unencryptedDomains: ["west"] })).outcome).toBe("VXLAN");
  expect((await ask({ ...vxlan, unencryptedDomains: ["north"] })).outcome).toMatchObject(REFUSED);
});

test("within the domain anything goes, also by way of an endpoint that is registered elsewhere", async () => {
  const { outcome } = await ask({ isHome: true, offers: ["VXLAN"], answered: "VXLAN" });
  expect(outcome).toBe("VXLAN");
});
