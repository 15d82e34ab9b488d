/** The firewall: a link in a chain of endpoints that lets through what its rules allow. */
import { defineDaemon } from "../../sdk/daemon.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Logger } from "../../sdk/log.ts";
import { systemClock } from "../../sdk/clock.ts";
import type { Clock } from "../../sdk/clock.ts";
import { openWatchedFile } from "../../sdk/watched-file.ts";
import { DOWN_PREFIX, UP_PREFIX } from "../passthrough/device-names.ts";
import { beOnlyOne } from "../passthrough/only-one.ts";
import { openPassThrough } from "../passthrough/open.ts";
import { table } from "./config.ts";
import type { FirewallConfig } from "./config.ts";
import { openFilter } from "./filter.ts";
import type { Filter } from "./filter.ts";
import { trackRules } from "./metrics.ts";
import { parseRules } from "./rules.ts";

export const daemon = defineDaemon({
  name: "nse firewall",
  summary: "firewall: passes on what its rules allow, to the next endpoint of the same service",
  about:
    "A pass-through endpoint with rules. It tracks flows: what answers an allowed packet passes, too. The rules are a YAML file; when it changes they are replaced at once, and a fault in it leaves those in force. It needs NET_ADMIN in the network namespace that it runs in, and the program nft.",
  table,
  check: (config) => void servicesOf(config),
  async open(config, runtime, stack) {
    const { log } = runtime;
    // Before the kernel's rules are touched: they may be another one's.
    stack.use(await beOnlyOne());
    const file = stack.use(
      await openWatchedFile({
        path: config.aclConfigPath,
        variable: "NSM_ACL_CONFIG_PATH",
        what: "firewall rules",
        parse: parseRules,
        log,
        clock: systemClock,
      }),
    );
    // Behind the file: with a wrong one the rules of an earlier life stay.
    const filter = stack.use(await openFilter({ client: UP_PREFIX, service: DOWN_PREFIX }, log));
    const replace = () =>
      filter.set(file.current()).catch((err: unknown) => {
        log.error(
          { err, path: file.path },
          "firewall rules cannot be used, the last good ones stay in force",
        );
      });
    // Before the first use: a change meanwhile is not announced again.
    stack.use(file.onChange(() => void replace()));
    await filter.set(file.current());
    stack.use(trackRules(filter, systemClock));
    stack.use(logCounters(filter, config.countersEveryMs, systemClock, log));
    stack.use(await openPassThrough({ ...config, serviceNames: servicesOf(config) }, runtime, filter));
  },
});

/** Throws INVALID_ARGUMENT `no-service`. */
function servicesOf({ serviceNames, serviceName }: FirewallConfig): readonly string[] {
  const all = [...new Set([...serviceNames, ...(serviceName === undefined ? [] : [serviceName])])];
  if (all.length > 0) return all;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "no-service",
    "NSM_SERVICE_NAMES must be set: network services that the endpoint offers",
  );
}

/** One line for the rules whose numbers changed. */
function logCounters(filter: Filter, everyMs: number, clock: Clock, log: Logger): Disposable {
  let timer: Disposable | undefined;
  let last = new Map<string, number>();
  let isClosed = false;
  const tick = async () => {
    try {
      const counters = await filter.counters();
      const changed = counters.filter(({ rule, packets }) => (last.get(rule) ?? 0) !== packets);
      last = new Map(counters.map(({ rule, packets }) => [rule, packets]));
      if (changed.length > 0) log.info({ counters: changed }, "firewall counters");
    } catch (err) {
      if (!isClosed) log.warn({ err }, "reading firewall counters failed");
    }
    arm();
  };
  const arm = () => {
    if (!isClosed && everyMs > 0) timer = clock.timer(everyMs, () => void tick());
  };
  arm();
  return {
    [Symbol.dispose]() {
      isClosed = true;
      timer?.[Symbol.dispose]();
    },
  };
}
