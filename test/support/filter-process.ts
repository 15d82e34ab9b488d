/** Child process: a firewall's rules in the namespace that it was started in, as it is told over IPC. See test/netns/firewall.test.ts. */
import { flushCompileCache } from "node:module";
import { openFilter } from "../../nse/firewall/filter.ts";
import { parseRules } from "../../nse/firewall/rules.ts";
import { createLogger } from "../../sdk/log.ts";

export type FilterCall =
  | { readonly do: "set"; readonly rules: string }
  | { readonly do: "join"; readonly key: string; readonly devices: readonly string[] }
  | { readonly do: "part"; readonly key: string };

const filter = await openFilter({ client: "in-", service: "out-" }, createLogger("filter", "ERROR"));

process.on("message", (call: FilterCall) => {
  void answer(call).then(() => process.connected && process.send?.("done"));
});
flushCompileCache(); // it ends by SIGKILL
process.send?.("done");

async function answer(call: FilterCall): Promise<void> {
  if (call.do === "set") await filter.set(parseRules(call.rules));
  else if (call.do === "join") await filter.join(call.key, call.devices);
  else await filter.part(call.key);
}
