import { expect, test } from "vitest";
import { createBoard } from "./board.ts";
import { createStory } from "./story.ts";
import { parseWireNews } from "./wires.ts";

/** A board that is fed with lines of a client's log, and what it shows last; columns have no width here. */
function build() {
  let shown: readonly string[] = [];
  const story = createStory(false, { write: () => true });
  const board = createBoard(
    { ...story, live: (lines) => (shown = lines.map((line) => line.replaceAll(/ +/g, " "))) },
    "east",
  );
  const says = (line: object) => {
    const news = parseWireNews(JSON.stringify(line));
    if (news === undefined) throw new Error("the line is not about a wire");
    board.heard("client", news);
    return shown;
  };
  return { board, says, shown: () => shown };
}

const LOCAL = ["nsmgr-node1", "forwarder-node1"];
const established = (...path: readonly string[]) => ({
  msg: "wire established",
  connection: "client-0",
  service: "web",
  interface: "nsm-1",
  nse: path.at(-1),
  addresses: ["172.16.1.1/32"],
  peerAddresses: ["172.16.1.0/32"],
  path: ["client", ...LOCAL, ...path],
});

test("the tree follows what clients say of their wires: up, healing, elsewhere, closed", () => {
  const { board, says, shown } = build();
  const far = established("proxy-east", "proxy-west", "nsmgr-node3", "forwarder-node3", "web-1");
  expect(says(far)).toEqual(["east", "└─ client nsm-1 up ══ west ══ web-1"]);
  board.measured({
    client: "client",
    service: "web",
    endpoint: "web-1",
    mechanism: "WIREGUARD",
    interface: "nsm-1",
    addresses: [],
    peers: [],
    path: [],
    mtu: 1420,
    rttMs: 0.5,
    pingsSent: 5,
    pingsReceived: 5,
  });
  const measured = "└─ client nsm-1 WIREGUARD 0.50 ms ══ west ══ web-1";
  expect(shown()).toEqual(["east", measured]);
  expect(says(far)).toEqual(["east", measured]); // a refresh

  const down = { msg: "wire is down, healing", connection: "client-0" };
  expect(says(down)[1]).toMatch(/^└─ client nsm-1 healing .*╌╌ west ╌╌ web-1$/);
  expect(says(established("spare"))).toEqual(["east", "└─ client nsm-1 up ══ spare"]); // what was measured was another way
  expect(says({ msg: "wire is wanted elsewhere, moving", connection: "client-0" })[1]).toContain("moving");
  expect(says({ msg: "wire closed", connection: "client-0" })).toEqual([]);
});
