/** The pass-through endpoint: a link in a chain of endpoints of one network service. */
import { defineDaemon } from "../../sdk/daemon.ts";
import { table } from "./config.ts";
import { beOnlyOne } from "./only-one.ts";
import { openPassThrough } from "./open.ts";

export const daemon = defineDaemon({
  name: "nse passthrough",
  summary: "pass-through endpoint: hands each wire on to the next endpoint of the same service",
  about:
    "A link in a chain of endpoints. For each client it asks for the same network service again, with its own labels (NSM_LABELS) in place of the client's: the matches of the network service decide which endpoint comes next. Packets pass from one wire to the other in the network namespace that it runs in, where it needs NET_ADMIN. When the next endpoint dies it finds another one; the wires before stay as they are.",
  table,
  async open(config, runtime, stack) {
    stack.use(await beOnlyOne());
    stack.use(await openPassThrough(config, runtime));
  },
});
