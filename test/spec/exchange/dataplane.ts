/** A recorder in place of the kernel: plans every wire, and holds the plan against what the recording implies. */
import { toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import type { Dataplane, Wire } from "../../../forwarder/dataplane.ts";
import { planWire } from "../../../forwarder/plan/plan.ts";
import type { Wanted, WantedEnd } from "../../../forwarder/plan/plan.ts";
import { formatPrefix } from "../../../sdk/prefix.ts";
import { createReservations } from "../../../forwarder/kernel/reservations.ts";
import type { Bench } from "./bench.ts";
import { inodeIn } from "./netns.ts";
import { memberOf, textOf } from "./places.ts";
import type { Playback } from "./playback.ts";
import { methodOf, requestOf, responsesOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";

/** Of the made-up underlay. */
const UNDERLAY_MTU = 1500;
/** IPv4, UDP, VXLAN, Ethernet and an inner VLAN tag; a wire inside a node has what our forwarder sets by default. */
const VXLAN_MTU = UNDERLAY_MTU - 54;
const LOCAL_MTU = 9000;

export interface PlannedDataplane extends Dataplane {
  /** After a call was served: is exactly the wire there, or gone, that the recording implies? One line a fault. */
  check(call: RecordedCall, sent: Playback["sent"]): readonly string[];
}

export function createPlannedDataplane({ subject }: Bench): PlannedDataplane {
  const wires = new Map<string, Wanted>();
  const reservations = createReservations({
    ports: { first: 51820, last: 51900 },
    found: [],
    foreignVnis: new Set(),
    busyPorts: () => new Set(),
  });
  return {
    ...reservations,
    wireguard: { mode: "kernel" },
    vxlan: { available: true },
    found: () => [],
    foundAs: () => [],
    reserveVni(wireId, parity, port) {
      const vni = reservations.reserveVni(wireId, parity, port);
      subject.names.invent(String(vni));
      return vni;
    },
    apply(wire: Wire) {
      wires.set(wire.id, planWire(wire));
      return Promise.resolve();
    },
    remove(wireId) {
      wires.delete(wireId);
      reservations.release(wireId);
      return Promise.resolve();
    },
    sweep: () => Promise.resolve([]),
    stats: () => Promise.resolve(new Map()),
    lastStats: () => [],
    onNamespaceEnded: () => undefined,
    underlayMtu: () => Promise.resolve(UNDERLAY_MTU),
    check(call, sent) {
      const id = ownIdIn(call);
      const wire = [...wires.values()].find(({ wireId }) => subject.names.fits(wireId, id));
      if (call.method.endsWith("/Close"))
        return wire === undefined ? [] : ["the wire is left after the Close"];
      if (!call.method.endsWith("NetworkService/Request")) return [];
      const behind = sent.findLast((each) => each.call.method === call.method);
      const [answer] = responsesOf(call);
      if (wire === undefined || behind === undefined || answer === undefined) return ["no wire is planned"];
      return faultsOf(wire, toJson(methodOf(call).output, answer), behind.answer);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** The recorded forwarder's own segment: the one behind its caller's, in the answer to a Request or in a Close. */
function ownIdIn(call: RecordedCall): string {
  const { name, input, output } = methodOf(call);
  const [answer] = responsesOf(call);
  const json =
    name === "request" && answer !== undefined ? toJson(output, answer) : toJson(input, requestOf(call));
  const path = memberOf(json, "path");
  const segments = memberOf(path, "pathSegments");
  const index = Number(memberOf(path, "index") ?? 0);
  return textOf(memberOf(Array.isArray(segments) ? segments[index + 1] : undefined, "id"));
}

/** `ahead`: the recorded answer to our client; `behind`: the one that we got. */
function faultsOf(wire: Wanted, ahead: JsonValue, behind: JsonValue): string[] {
  const [client, endpoint] = [ahead, behind].map((connection) => memberOf(connection, "mechanism"));
  const tunnel = [client, endpoint].find((mechanism) => memberOf(mechanism, "type") !== "KERNEL");
  const ip = memberOf(memberOf(ahead, "context"), "ipContext");
  const isIp = memberOf(ahead, "payload") !== "ETHERNET";
  const mtu = tunnel === undefined ? LOCAL_MTU : VXLAN_MTU;
  const expected = [
    { side: "client", mechanism: client, own: "src", peer: "dst" },
    { side: "endpoint", mechanism: endpoint, own: "dst", peer: "src" },
  ].filter(({ mechanism }) => memberOf(mechanism, "type") === "KERNEL");
  return [
    ...same(
      "ends",
      wire.ends.map(({ side }) => side),
      expected.map(({ side }) => side),
    ),
    ...linkFaults(wire, tunnel, tunnel === client ? "src" : "dst"),
    ...expected.flatMap(({ side, mechanism, own, peer }) => {
      const end = wire.ends.find((each) => each.side === side);
      if (end === undefined) return [`no ${side}`];
      const parameters = memberOf(mechanism, "parameters");
      return [
        ...same(`${side} name`, end.name, memberOf(parameters, "name")),
        ...same(`${side} namespace`, end.netns.inode, inodeIn(memberOf(parameters, "inodeURL"))),
        ...same(`${side} addresses`, end.addresses.map(formatPrefix), memberOf(ip, `${own}IpAddrs`) ?? []),
        ...same(`${side} routes`, routesOf(end), prefixesIn(memberOf(ip, `${own}Routes`)).sort()),
        ...same(`${side} MTU`, end.mtu, mtu),
        ...same(`${side} link-local`, end.noAddressGeneration, isIp),
        ...same(
          `${side} neighbours`,
          end.neighbors.map((neighbor) => neighbor.ip),
          isIp && tunnel === undefined
            ? texts(memberOf(ip, `${peer}IpAddrs`)).map((text) => text.split("/")[0])
            : [],
        ),
      ];
    }),
  ];
}

/** `peer`: which addresses of the mechanism are those of the other node. */
function linkFaults({ link }: Wanted, tunnel: JsonValue | undefined, peer: "src" | "dst"): string[] {
  if (tunnel === undefined) return same("link", link.kind, "veth");
  if (link.kind !== "vxlan") return [`link ${link.kind} for ${JSON.stringify(tunnel)}`];
  const parameters = memberOf(tunnel, "parameters");
  const own = peer === "src" ? "dst" : "src";
  const recorded = ["ip", "port"].map((name) => memberOf(parameters, `${own}_${name}`));
  return [
    ...same("own end", [link.localIp, String(link.port)], recorded),
    ...same("other end", link.remoteIp, memberOf(parameters, `${peer}_ip`)),
  ];
}

function routesOf({ routes }: WantedEnd): string[] {
  return routes.map(({ prefix }) => formatPrefix(prefix)).sort();
}

function prefixesIn(routes: JsonValue | undefined): string[] {
  return Array.isArray(routes) ? routes.map((route) => textOf(memberOf(route, "prefix"))) : [];
}

function texts(list: JsonValue | undefined): string[] {
  return Array.isArray(list) ? list.map(String) : [];
}

function same(what: string, ours: unknown, recorded: unknown): string[] {
  const [left, right] = [ours, recorded].map((value) =>
    JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner)),
  );
  return left === right ? [] : [`planned ${what}: ours ${left}, recorded ${right}`];
}
