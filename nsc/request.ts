/** What a client asks for, as a first Request. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { KERNEL } from "../sdk/mechanisms/kernel.ts";

export interface Wish {
  /** Connection id, unique for this client: `<NSM_NAME>-<position in the list>`. */
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
}

export function firstRequest(wish: Wish): NetworkServiceRequest {
  const name = wish.interfaceName === undefined ? {} : { name: wish.interfaceName };
  const accept: Record<string, string> =
    wish.acceptDefaultRoute === true ? { [KERNEL.acceptDefaultRoute.key]: "true" } : {};
  return create(NetworkServiceRequestSchema, {
    connection: {
      id: wish.id,
      networkService: wish.networkService,
      context: { ipContext: {}, dnsContext: {} },
      labels: { ...wish.labels },
      path: { pathSegments: [{ name: wish.name, id: wish.id }] },
    },
    mechanismPreferences: [
      { cls: "LOCAL", type: "KERNEL", parameters: { ...name, ...accept, inodeURL: wish.netnsUrl } },
    ],
  });
}
