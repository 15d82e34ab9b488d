// A pod gets the number (inode) of a namespace that has ended: what is left to be removed of the one is nothing of the other.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createNamespace, isRoot } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { delay } from "../../sdk/clock.ts";
import { kernelSide, startNode, wireOf } from "../support/node.ts";
import type { Node } from "../support/node.ts";

/** The kernel gives out the lowest free number, but frees it a moment after the namespace's end. */
const MOST_TRIES = 200;
const PAUSE_MS = 50;

describe.skipIf(!isRoot)("a namespace with the inode of an ended one (needs root)", () => {
  let node: Namespace, endpoint: Namespace, forwarder: Node;
  let all: Namespace[];
  beforeEach(async () => {
    all = [node, endpoint] = [createNamespace("node"), createNamespace("nse")];
    forwarder = await startNode(node);
  });
  afterEach(async () => {
    await forwarder.kill();
    await Promise.all(all.map((ns) => ns.kill()));
  });

  /** A wire whose client has ended, and somebody else with its inode and a device of its name and index. */
  const successor = async () => {
    const client = createNamespace("ended");
    await forwarder.apply(wireOf("wire-1", kernelSide(client, "nsm-c"), kernelSide(endpoint, "nsm-e")));
    const ifindex = Number(/^(\d+): nsm-c/m.exec(client.ip("link show dev nsm-c"))?.[1]);
    const { inode } = client;
    return {
      ifindex,
      come: async () => {
        await client.kill();
        for (let tries = 1; tries <= MOST_TRIES; tries++) {
          const other = createNamespace(`other-${tries}`);
          all.push(other);
          if (other.inode !== inode) {
            await delay(PAUSE_MS);
            continue;
          }
          other.ip(`link add nsm-c index ${ifindex} type bridge`);
          return other;
        }
        throw new Error(`no namespace got inode ${inode} in ${MOST_TRIES} tries`);
      },
    };
  };

  test.for(["goes on", "is restarted"])(
    "keeps its devices when a forwarder that %s removes the wire",
    async (how) => {
      const { ifindex, come } = await successor();
      if (how === "is restarted") {
        await forwarder.kill();
        forwarder = await startNode(node);
      }
      expect(await forwarder.found("wire-1")).toHaveLength(how === "is restarted" ? 2 : 0);
      const other = await come();
      await forwarder.remove("wire-1");
      expect(other.ip("link show dev nsm-c")).toMatch(new RegExp(`^${ifindex}: nsm-c`));
    },
  );
});
