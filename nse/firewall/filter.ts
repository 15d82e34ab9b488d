/** The firewall's rules in the own network namespace, and their counters. */
import * as z from "zod";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import type { Logger } from "../../sdk/log.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import { runProgram } from "../../sdk/run-program.ts";
import { FLUSH_FLOWS } from "./conntrack.ts";
import type { Ruleset } from "./rules.ts";
import type { Gate } from "../passthrough/open.ts";
import { JUDGED, REMOVE, TABLE, nameOfCounter, scriptOf } from "./script.ts";
import type { Sides, Zone } from "./script.ts";

export interface Counter {
  /** Of the rule; `default` for what no rule fits. */
  readonly rule: string;
  readonly packets: number;
  readonly bytes: number;
}

export interface Filter extends Gate, AsyncDisposable {
  /** All at once, or nothing: throws INTERNAL `program-failed` with nft's words. Flows that exist are judged anew. */
  set(rules: Ruleset): Promise<void>;
  /** Keeps the flows of connections apart, whatever their addresses. */
  join(key: string, devices: readonly string[]): Promise<void>;
  part(key: string): Promise<void>;
  counters(): Promise<readonly Counter[]>;
}

/** Zones are numbers of 16 bits, 0 is that of everything else. */
const LAST_ZONE = 0xffff;

const Listed = z.object({
  nftables: z.array(
    z.object({ counter: z.object({ name: z.string(), packets: z.number(), bytes: z.number() }).optional() }),
  ),
});

/**
 * Until `set` succeeds nothing passes. The table stays when this process dies, and when it is disposed before `set` has succeeded: who may have
 * passed packets on before has not ended then. Else it goes when it is disposed.
 */
export async function openFilter(sides: Sides, log: Logger): Promise<Filter> {
  const zones = new Map<string, Zone>();
  let isSet = false;
  let rules: Ruleset = { default: "deny", rules: [] };
  let lastId = 0;
  /** The longest unused one: the kernel remembers flows of a zone when its connection has gone. */
  const nextId = () => {
    const taken = new Set([...zones.values()].map(({ id }) => id));
    do lastId = (lastId % LAST_ZONE) + 1;
    while (taken.has(lastId));
    return lastId;
  };
  const inTurn = oneAtATime();
  const put = async (wanted: Ruleset) => {
    const known = (await list()).map(({ name }) => name);
    await nft(["-f", "-"], scriptOf(wanted, sides, [...zones.values()], known));
  };
  // At once: the rules of an earlier life hold until these do.
  await nft(["-f", "-"], REMOVE + scriptOf(rules, sides, [], []));
  return {
    mark: JUDGED,
    set: (wanted) =>
      inTurn(async () => {
        await put(wanted);
        rules = wanted;
        isSet = true;
        using socket = openNetlink("netfilter");
        await socket.execute(FLUSH_FLOWS);
        log.info({ rules: wanted.rules.length, default: wanted.default }, "firewall rules in force");
      }),
    join: (key, devices) =>
      inTurn(async () => {
        const known = zones.get(key);
        if (known !== undefined && known.devices.join() === devices.join()) return;
        zones.set(key, { id: known?.id ?? nextId(), devices });
        await put(rules);
      }),
    part: (key) =>
      inTurn(async () => {
        if (zones.delete(key)) await put(rules);
      }),
    counters: async () =>
      (await list()).flatMap(({ name, packets, bytes }) => {
        const rule = nameOfCounter(name);
        return rule === undefined ? [] : [{ rule, packets, bytes }];
      }),
    async [Symbol.asyncDispose]() {
      await inTurn(async () => {
        if (isSet) await nft(["-f", "-"], REMOVE);
      });
    },
  };
}

async function list() {
  // Of our table alone: a pod may have others, whose counters are nobody's rules here.
  const tables = await nft(["-j", "list", "counters", "table", "inet", TABLE], "");
  return Listed.parse(JSON.parse(tables)).nftables.flatMap(({ counter }) =>
    counter === undefined ? [] : [counter],
  );
}

function nft(args: readonly string[], script: string): Promise<string> {
  return runProgram("nft", args, script);
}
