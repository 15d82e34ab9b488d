/** Tells when the node's addresses change: its tunnels' peers then hear at once where it is (docs/protocol.md, "Wires"). */
import type { Clock } from "../../sdk/clock.ts";
import { openEvents } from "../kernel/events.ts";

const RTNLGRP_IPV4_IFADDR = 5;
const RTNLGRP_IPV6_IFADDR = 9;
/** One move is several changes: an address is added, or no more tentative, and another one taken away. */
const SETTLED_MS = 50;

/** Calls back once for changes that come together. State: one socket, one timer. */
export function watchOwnAddresses(clock: Clock, onChanged: () => void): Disposable {
  let timer: Disposable | undefined;
  const soon = () => {
    timer ??= clock.timer(SETTLED_MS, () => {
      timer = undefined;
      onChanged();
    });
  };
  const events = openEvents({
    groups: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
    what: "changes of addresses",
    onMessage: soon,
    onLost: soon,
  });
  return {
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      events[Symbol.dispose]();
    },
  };
}
