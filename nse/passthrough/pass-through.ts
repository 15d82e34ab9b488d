/** A link of a chain: the connection of the hop before, joined to one of our own to the next endpoint of the same service (docs/protocol.md, "Chaining"). */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { CallContext, NetworkService } from "../../sdk/chain.ts";
import type { Clock } from "../../sdk/clock.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Logger } from "../../sdk/log.ts";
import {
  CHAIN_KEY,
  MAX_CHAINED,
  chainTakenOver,
  formatChainMark,
  readChainMark,
} from "../../sdk/chain-mark.ts";
import type { ChainMark } from "../../sdk/chain-mark.ts";
import type { Downstream, News } from "./downstream.ts";
import { glue, namesBehind } from "./glue.ts";
import type { Joint } from "./joints.ts";

/** How long what is behind waits for another hop before, when the one that was there has died. */
const LINGER_MS = 10_000;
/** A second wish for a new choice within this time goes on to the next hop: the first did not help. */
const RESELECT_AGAIN_MS = 10_000;

export interface PassThroughOptions {
  /** Registration and path segment name. */
  readonly name: string;
  readonly newId: () => string;
  readonly createDownstream: (id: string, onNews: (news: News) => void) => Downstream;
  /** Of these names, those of endpoints of the service that are registered now; for what a chain had before. */
  readonly registered: (
    service: string,
    names: readonly string[],
    signal: AbortSignal,
  ) => Promise<readonly string[]>;
  /** Called before the device can be there: nothing that comes by it goes on unless it is joined. */
  readonly hold: (device: string) => Promise<void>;
  /** Called when the device goes. */
  readonly release: (device: string) => Promise<void>;
  readonly join: (key: string, joint: Joint) => Promise<void>;
  readonly part: (key: string) => Promise<void>;
  readonly store: Pick<MonitorStore, "fromNextHop">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A downstream half, and who uses it. */
interface Link {
  readonly chain: string;
  readonly downstream: Downstream;
  /** Id of the connection of the hop before; undefined while nobody has it. */
  user: User | undefined;
  linger: Disposable | undefined;
  reselectedMs: number;
}

interface User {
  readonly id: string;
  readonly passed: number;
  /** The last answer to the hop before. */
  answer: Connection | undefined;
}

type Context = CallContext & WithEvents;

export interface PassThrough extends NetworkService<Context>, AsyncDisposable {}

/** State: a link per connection and per chain; dropped on close, or when nobody has taken over what a dead hop left. */
export function createPassThrough(options: PassThroughOptions): PassThrough {
  const { log, clock, name } = options;
  const byUser = new Map<string, Link>();
  const byChain = new Map<string, Link>();
  const replaced = new Set<string>();

  const createLink = (mark: ChainMark): Link => {
    const link: Link = {
      chain: mark.id,
      downstream: options.createDownstream(options.newId(), (news) => tell(options, link, news)),
      user: undefined,
      linger: undefined,
      reselectedMs: -Infinity,
    };
    byChain.set(mark.id, link);
    return link;
  };

  const drop = async (link: Link, orphan?: "orphan") => {
    link.linger?.[Symbol.dispose]();
    if (byChain.get(link.chain) === link) byChain.delete(link.chain);
    await link.downstream.close(orphan);
    await options.release(link.downstream.interfaceName);
  };

  const leave = (link: Link, id: string) => {
    byUser.delete(id);
    link.user = undefined;
  };

  const lingerOn = (link: Link) => {
    link.linger?.[Symbol.dispose]();
    link.linger = clock.timer(LINGER_MS, () => void drop(link));
  };

  /** The link of a connection: its own, the one of its chain (whoever had that has been replaced), or a new one. */
  const take = (id: string, mark: ChainMark): Link => {
    const link = byUser.get(id) ?? byChain.get(mark.id) ?? createLink(mark);
    const former = link.user;
    if (former?.id === id) return link;
    if (former !== undefined) {
      // Its Close comes when it has been noticed that it is gone; until then it has no say.
      leave(link, former.id);
      replaced.add(former.id);
      log.info({ connection: id, former: former.id }, "chain goes on with another hop before");
    }
    link.linger?.[Symbol.dispose]();
    link.linger = undefined;
    link.user = { id, passed: mark.passed, answer: undefined };
    byUser.set(id, link);
    return link;
  };

  const giveBack = async (link: Link, id: string, isNew: boolean) => {
    leave(link, id);
    if (isNew) await drop(link);
    else lingerOn(link);
  };

  return {
    async request(request, ctx) {
      const asked = connectionOf(request);
      const received = asked.context?.extraContext[CHAIN_KEY];
      const mark = readChainMark(received) ?? {
        id: byUser.get(asked.id)?.chain ?? options.newId(),
        passed: 0,
      };
      refuseCircle(mark, name);
      refuseReplaced(replaced, asked.id);
      const formerId = (byUser.get(asked.id) ?? byChain.get(mark.id))?.user?.id;
      const link = take(asked.id, mark);
      const isNew = link.downstream.connection === undefined;
      try {
        const prefer = isNew
          ? await options.registered(asked.networkService, namesBehind(asked), ctx.signal)
          : [];
        const context = clone(ConnectionContextSchema, asked.context ?? create(ConnectionContextSchema));
        context.extraContext[CHAIN_KEY] = formatChainMark({ id: link.chain, passed: mark.passed + 1 });
        await options.hold(link.downstream.interfaceName);
        const { networkService, payload } = asked;
        const wish = { networkService, payload, context, prefer: prefer.filter((each) => each !== name) };
        const behind = await link.downstream.request(wish, ctx.signal, wantsAnother(link, asked, clock));
        const answer = glue(asked, behind, name, formatChainMark({ id: link.chain, passed: mark.passed }));
        if (formerId !== undefined && formerId !== asked.id) await options.part(formerId);
        await options.join(asked.id, jointOf(answer, link.downstream));
        if (link.user?.id === asked.id) link.user.answer = clone(ConnectionSchema, answer);
        return answer;
      } catch (error) {
        if (!ctx.established && link.user?.id === asked.id) {
          await options.part(asked.id);
          await giveBack(link, asked.id, isNew);
        }
        throw error;
      }
    },
    async close(connection) {
      const { id } = connection;
      await options.part(id);
      replaced.delete(id);
      const link = byUser.get(id);
      if (link === undefined) return;
      const passed = link.user?.passed ?? 0;
      leave(link, id);
      // Nobody wished for this end: the hop before has died, and another may come in its place.
      const isOrphan = connection.state === State.DOWN && passed > 0;
      if (isOrphan) lingerOn(link);
      else await drop(link);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...byChain.values()].map((link) => drop(link, "orphan")));
    },
  };
}

/** News of the half behind, for the hop before. */
function tell({ store, name }: PassThroughOptions, { user, downstream, chain }: Link, news: News): void {
  if (user?.answer === undefined) return;
  const { connection: behind } = downstream;
  if (news === "down" || behind === undefined) {
    store.fromNextHop(user.id, { state: State.DOWN });
    return;
  }
  const next = glue(user.answer, behind, name, formatChainMark({ id: chain, passed: user.passed }));
  store.fromNextHop(user.id, { state: news === "healed" ? State.UP : State.REFRESH_REQUESTED, next });
}

/** The half behind looks after itself; only who asks for a new choice again, soon after the first time, gets it from the hops behind. */
function wantsAnother(link: Link, { state }: Connection, clock: Clock): boolean {
  if (state !== State.RESELECT_REQUESTED) return false;
  const nowMs = clock.monotonic();
  const isAgain = nowMs - link.reselectedMs < RESELECT_AGAIN_MS;
  link.reselectedMs = isAgain ? -Infinity : nowMs;
  return isAgain;
}

function jointOf({ mechanism, context, payload }: Connection, { interfaceName }: Downstream): Joint {
  return {
    payload: payload === "ETHERNET" ? "ETHERNET" : "IP",
    up: mechanism?.parameters["name"] ?? "",
    down: interfaceName,
    clientAddresses: context?.ipContext?.srcIpAddrs ?? [],
    serviceAddresses: context?.ipContext?.dstIpAddrs ?? [],
  };
}

function refuseReplaced(replaced: ReadonlySet<string>, id: string): void {
  if (replaced.has(id)) throw chainTakenOver(id);
}

function refuseCircle({ passed }: ChainMark, name: string): void {
  if (passed < MAX_CHAINED) return;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "chain-too-long",
    `the chain has passed ${passed} endpoints before ${name}: the matches of the network service lead in circles`,
  );
}
