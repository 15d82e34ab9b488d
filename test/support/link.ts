/** A link of a chain (nse/passthrough) between a forwarder before and a manager behind that a test plays. */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectionSchema, PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema, IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { createMonitorStore } from "../../sdk/elements/monitor.ts";
import type { HopEvent } from "../../sdk/elements/target.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, eventsOf, requestOn } from "./chain.ts";
import { createFakeClock } from "./fake-clock.ts";
import { makePeer } from "./peer.ts";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";
import { createDownstream } from "../../nse/passthrough/downstream.ts";
import type { Joint } from "../../nse/passthrough/joints.ts";
import { createPassThrough } from "../../nse/passthrough/pass-through.ts";

const peer = await makePeer("/forwarder");
export const HOPS = ["client", "nsmgr", "forwarder", "link"];

export function buildLink() {
  const clock = createFakeClock();
  const store = createMonitorStore();
  const requests: NetworkServiceRequest[] = [];
  const closes: Connection[] = [];
  const followers = new Map<string, (event: HopEvent) => void>();
  const joints = new Map<string, Joint>();
  const held: string[] = [];
  let ids = 0;
  const bed = {
    held,
    clock,
    store,
    requests,
    closes,
    followers,
    joints,
    /** The endpoint that the manager chooses next. */
    next: "gateway",
    failure: undefined as NsmError | undefined,
    /** Of Requests that name an endpoint. */
    refuseNamed: undefined as NsmError | undefined,
    address: "10.0.0.1/32",
    registered: [] as string[],
  };
  const manager = {
    request(request: NetworkServiceRequest) {
      requests.push(request);
      if (bed.failure !== undefined) return Promise.reject(bed.failure);
      const asked = request.connection ?? create(ConnectionSchema);
      if (bed.refuseNamed !== undefined && asked.networkServiceEndpointName !== "")
        return Promise.reject(bed.refuseNamed);
      const answer = clone(ConnectionSchema, asked);
      answer.networkServiceEndpointName = asked.networkServiceEndpointName || bed.next;
      answer.mechanism ??= request.mechanismPreferences[0];
      const [own] = answer.path?.pathSegments ?? [];
      const expires = timestampFromMs(clock.now() + 600_000);
      const behind = ["nsmgr", "forwarder", answer.networkServiceEndpointName].map((name) =>
        create(PathSegmentSchema, { name, id: `${name}-of-${own?.id}`, expires, token: "" }),
      );
      if (answer.path !== undefined && own !== undefined) answer.path.pathSegments = [own, ...behind];
      answer.context ??= create(ConnectionContextSchema);
      answer.context.ipContext = create(IPContextSchema, { srcIpAddrs: [bed.address] });
      return Promise.resolve(answer);
    },
    close(connection: Connection) {
      closes.push(connection);
      return Promise.resolve();
    },
  };
  const link = createPassThrough({
    name: "link",
    newId: () => `00000000-0000-0000-0000-${String(++ids).padStart(12, "0")}`,
    createDownstream: (id, onNews) =>
      createDownstream({
        id,
        name: "link",
        labels: { app: "link" },
        netnsUrl: "inode://4/1",
        interfaceName: `out-${id.slice(-2)}`,
        manager,
        follow(of, onEvent) {
          followers.set(of, onEvent);
          return { [Symbol.dispose]: () => void followers.delete(of) };
        },
        requestTimeoutMs: 15_000,
        clock,
        log: silentLogger,
        onNews,
      }),
    registered: (_, names) => Promise.resolve(names.filter((name) => bed.registered.includes(name))),
    hold: (device) => Promise.resolve(void held.push(`${requests.length} ${device}`)),
    release: (device) => Promise.resolve(void held.push(`released ${device} after ${closes.length}`)),
    join: (key, joint) => Promise.resolve(void joints.set(key, joint)),
    part: (key) => Promise.resolve(void joints.delete(key)),
    store,
    clock,
    log: silentLogger,
  });
  const ask = (id = "up-1", change: (connection: Connection) => void = () => undefined, overrides = {}) => {
    const request = requestOn(HOPS, ["client-0", "m", "f", id]);
    const connection = request.connection ?? create(ConnectionSchema);
    connection.labels = { app: "client" };
    connection.mechanism = { ...requestMechanism() };
    change(connection);
    return link.request(request, eventsOf(callBy(peer), overrides)).then((answer) => {
      store.update(answer, peer.spiffeId);
      return answer;
    });
  };
  const close = (connection: Connection, overrides = {}) =>
    link.close(connection, eventsOf(callBy(peer), overrides));
  return { bed, link, ask, close };
}

function requestMechanism() {
  const connection = create(ConnectionSchema, {
    mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { name: "in-1" } },
  });
  if (connection.mechanism === undefined) throw new Error("no mechanism");
  return connection.mechanism;
}

export const markOf = (connection: Connection | undefined) => connection?.context?.extraContext[CHAIN_KEY];
export const withContext = (answer: Connection) => (connection: Connection) => {
  if (answer.context !== undefined) connection.context = clone(ConnectionContextSchema, answer.context);
};
export const namesOf = ({ path }: Connection) => path?.pathSegments.map(({ name }) => name);
