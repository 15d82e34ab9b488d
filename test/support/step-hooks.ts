/** Preloaded by a node of a test: the netlink socket of its data plane sends through `stepped-native.ts`. */
import { registerHooks } from "node:module";

registerHooks({
  resolve(specifier, context, next) {
    const isSocket = context.parentURL?.endsWith("/sdk/netlink/socket.ts") === true;
    if (!isSocket || !specifier.endsWith("/native.ts")) return next(specifier, context);
    return { url: new URL("stepped-native.ts", import.meta.url).href, shortCircuit: true };
  },
});
