/** What the rules of the firewall decided on, as metrics: read from nftables at each scrape. */
import type { Clock } from "../../sdk/clock.ts";
import { meters } from "../../sdk/metrics/meters.ts";
import { onceAScrape } from "../../sdk/metrics/once-a-scrape.ts";
import type { Filter } from "./filter.ts";

/** The names are those of the operator's file, which bounds their number. */
export function trackRules(filter: Pick<Filter, "counters">, clock: Pick<Clock, "monotonic">): Disposable {
  const read = onceAScrape(() => filter.counters(), clock);
  const samples = async (what: "packets" | "bytes") =>
    (await read()).map(({ rule, [what]: value }) => ({ labels: { rule }, value }));
  const stack = new DisposableStack();
  stack.use(meters.firewallPackets.track(() => samples("packets")));
  stack.use(meters.firewallBytes.track(() => samples("bytes")));
  return stack;
}
