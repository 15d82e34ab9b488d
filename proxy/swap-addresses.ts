/**
 * Tunnel addresses inside and outside of a cluster (docs/protocol.md, "Domains"). A forwarder knows the address that its node has inside;
 * the other cluster reaches the node by the outer one. `orig_src_ip` says that the asking cluster's proxy has been passed.
 */
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { Element } from "../sdk/chain.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";

const SRC = "src_ip";
const DST = "dst_ip";
const INNER_SRC = "orig_src_ip";
const INNER_DST = "orig_dst_ip";

/** By which address a node is reached from elsewhere; the same one for a node that has no other. */
export type OuterAddress = (inner: string) => string;

export function swapAddresses(outer: OuterAddress): Element {
  return (next) => ({
    async request(request, ctx) {
      const mechanisms = [connectionOf(request).mechanism, ...request.mechanismPreferences].filter(isTunnel);
      const arrives = mechanisms.some(hasLeft);
      for (const mechanism of mechanisms) {
        if (arrives) forgetServingEnd(mechanism);
        else showAskingEnd(mechanism, outer);
      }
      const response = await next.request(request, ctx);
      if (isTunnel(response.mechanism)) {
        if (arrives) showServingEnd(response.mechanism, outer);
        else restoreAskingEnd(response.mechanism);
      }
      return response;
    },
    // A Close goes by its ids: nobody looks at the addresses.
    close: (connection, ctx) => next.close(connection, ctx),
  });
}

function isTunnel(mechanism: Mechanism | undefined): mechanism is Mechanism {
  return mechanism?.cls === "REMOTE" && mechanism.parameters[SRC] !== undefined;
}

function hasLeft({ parameters }: Mechanism): boolean {
  return (parameters[INNER_SRC] ?? "") !== "";
}

function showAskingEnd({ parameters }: Mechanism, outer: OuterAddress): void {
  const inner = parameters[SRC] ?? "";
  parameters[INNER_SRC] = inner;
  parameters[SRC] = outer(inner);
}

function restoreAskingEnd({ parameters }: Mechanism): void {
  parameters[SRC] = parameters[INNER_SRC] ?? parameters[SRC] ?? "";
  parameters[INNER_SRC] = "";
}

/** The forwarder here answers with the inner one, at each Request. */
function forgetServingEnd({ parameters }: Mechanism): void {
  parameters[DST] = "";
  parameters[INNER_DST] = "";
}

function showServingEnd({ parameters }: Mechanism, outer: OuterAddress): void {
  const inner = parameters[DST] ?? "";
  parameters[INNER_DST] = inner;
  parameters[DST] = outer(inner);
}
