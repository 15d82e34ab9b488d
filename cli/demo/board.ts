/** The wires of a run as they are now, from what their clients say and what was measured. */
import { terminalWidth } from "../table.ts";
import type { Story } from "./story.ts";
import type { ClusterName } from "./topology.ts";
import { wireTree } from "./tree.ts";
import type { WireState } from "./tree.ts";
import type { WireNews, WireReport } from "./wires.ts";

export interface Board {
  heard(client: string, news: WireNews): void;
  measured(wire: WireReport): void;
}

/** Shows them live. All clients are of `cluster`. */
export function createBoard(story: Story, cluster: ClusterName | undefined): Board {
  const wires = new Map<string, WireState>();
  const show = () => {
    const inOrder = [...wires.values()].toSorted((a, b) => (a.interface < b.interface ? -1 : 1));
    story.live(wireTree(inOrder, cluster, terminalWidth()));
  };
  return {
    heard(client, news) {
      const known = wires.get(news.connection);
      if (news.state === "closed") wires.delete(news.connection);
      else if (news.state !== "up") {
        if (known === undefined) return;
        wires.set(news.connection, { ...known, state: news.state });
      } else {
        const { connection, path } = news;
        const isSame = known !== undefined && known.path.join() === path.join();
        wires.set(connection, {
          ...(isSame && known),
          client,
          connection,
          interface: news.interface,
          path,
          state: "up",
        });
      }
      show();
    },
    measured({ client, interface: name, mechanism, rttMs }) {
      const known = [...wires.values()].find((wire) => wire.client === client && wire.interface === name);
      if (known === undefined) return;
      wires.set(known.connection, { ...known, mechanism, rttMs });
      show();
    },
  };
}
