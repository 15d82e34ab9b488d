/** What a client asks for, as a first Request. */
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { Limits } from "../sdk/limits.ts";
import { KERNEL } from "../sdk/mechanisms/kernel.ts";
import { setParameter } from "../sdk/mechanisms/parameters.ts";

/**
 * Connection id of a client's wire by its position in the list, as the Go clients have it: `<name>-<position>`. The same after a
 * restart. Where that is longer than ids may be (names of hosts and pods are), the name's end is a hash of all of it.
 */
export function connectionId(name: string, position: number): string {
  const id = `${name}-${position}`;
  if (Buffer.byteLength(id) <= Limits.segmentIdBytes) return id;
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 16);
  const room = Limits.segmentIdBytes - `-${hash}-${position}`.length;
  const start = Array.from(name);
  while (Buffer.byteLength(start.join("")) > room) start.pop();
  return `${start.join("")}-${hash}-${position}`;
}

export interface Wish {
  /** Connection id, unique for this client: see {@link connectionId}. */
  readonly id: string;
  /** Own path segment name. */
  readonly name: string;
  readonly networkService: string;
  readonly labels: { readonly [key: string]: string };
  /** Wished interface name; undefined lets the forwarder choose. */
  readonly interfaceName: string | undefined;
  /** `inode://<device>/<inode>` of the own network namespace. */
  readonly netnsUrl: string;
  /** The endpoint may give this workload a default route. Default false. */
  readonly acceptDefaultRoute?: boolean;
  /** Addresses that stay on this workload's own network. Default none. */
  readonly protectedAddresses?: readonly string[];
}

export function firstRequest(wish: Wish): NetworkServiceRequest {
  const name = wish.interfaceName === undefined ? {} : { name: wish.interfaceName };
  const more: Record<string, string> =
    wish.acceptDefaultRoute === true ? { [KERNEL.acceptDefaultRoute.key]: "true" } : {};
  const { protectedAddresses = [] } = wish;
  if (protectedAddresses.length > 0) setParameter(more, KERNEL.protectedAddresses, protectedAddresses);
  return create(NetworkServiceRequestSchema, {
    connection: {
      id: wish.id,
      networkService: wish.networkService,
      context: { ipContext: {}, dnsContext: {} },
      labels: { ...wish.labels },
      path: { pathSegments: [{ name: wish.name, id: wish.id }] },
    },
    mechanismPreferences: [
      { cls: "LOCAL", type: "KERNEL", parameters: { ...name, ...more, inodeURL: wish.netnsUrl } },
    ],
  });
}
