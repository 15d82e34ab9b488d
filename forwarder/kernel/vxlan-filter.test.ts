import { expect, test } from "vitest";
import type { Request } from "../../sdk/netlink/message.ts";
import { openVxlanFilter, wholeTable } from "./vxlan-filter.ts";

type Entry = { port: number; vni: number; remoteIp: string };
const entry = (vni: number, remoteIp = "10.9.0.2"): Entry => ({ port: 4789, vni, remoteIp });

/** A transaction in words; of an element the key, which ends the message. */
function words(requests: readonly Request[]): string[] {
  return requests.map(({ doing, body }) => {
    const what = doing.replace(" of nftables", "");
    return what.endsWith("element") ? `${what} ${Buffer.from(body.subarray(-12)).toString("hex")}` : what;
  });
}

async function open(found: [string, Entry][] = [], refuse: (requests: string[]) => boolean = () => false) {
  const done: string[][] = [];
  const filter = await openVxlanFilter(new Map(found), async (requests) => {
    done.push(words(requests));
    if (refuse(words(requests))) throw new Error("refused");
  });
  return { filter, done };
}

const empty = words(wholeTable([]));

test("at start a left-over table goes, and the kernel proves what it can", async () => {
  const { done } = await open();
  expect(done).toEqual([[...empty, "delete table"]]);
});

test("at start the table is that of the wires that were found", async () => {
  const { done } = await open([["a", entry(1)]]);
  expect(done[1]).toEqual(words(wholeTable([entry(1)])));
});

test("the table comes with the first wire and goes with the last; between them only elements change", async () => {
  const { filter, done } = await open();
  done.length = 0;
  await filter.allow("a", entry(1));
  await filter.allow("a", entry(1));
  await filter.allow("b", entry(2, "fd09::2"));
  await filter.allow("b", entry(3, "fd09::2"));
  await filter.forget("unknown");
  await filter.forget("a");
  await filter.forget("b");
  const change = (verb: string, vni: string, peer: string) => [
    `${verb} element 0c00010012b5000000${vni}00`,
    `${verb} element ${peer}12b5000000${vni}00`,
  ];
  expect(done).toEqual([
    words(wholeTable([entry(1)])).slice(2),
    change("add", "0002", "00000002"),
    [...change("delete", "0002", "00000002"), ...change("add", "0003", "00000002")],
    change("delete", "0001", "0a090002"),
    ["delete table"],
  ]);
});

test("the only wire's change of peer is a change of elements", async () => {
  const { filter, done } = await open([["a", entry(1)]]);
  done.length = 0;
  await filter.allow("a", entry(2));
  expect(done[0]?.map((step) => step.split(" ")[0])).toEqual(["delete", "delete", "add", "add"]);
});

test("when a step is refused the table is written as a whole", async () => {
  const { filter, done } = await open(
    [["a", entry(1)]],
    ([first]) => first?.startsWith("add element") === true,
  );
  done.length = 0;
  await filter.allow("b", entry(2));
  expect(done[1]).toEqual(words(wholeTable([entry(1), entry(2)])));
});

test("what cannot be filtered fails, and later steps are tried again", async () => {
  let broken = false;
  const { filter } = await open([], () => broken);
  broken = true;
  await expect(filter.allow("a", entry(1))).rejects.toMatchObject({
    code: "UNAVAILABLE",
    reason: "vxlan-filter-failed",
  });
  broken = false;
  await filter.allow("b", entry(2));
});

test("the sets are described as the program nft 1.0.6 would", () => {
  const [ours = "", peers4 = "", peers6 = ""] = wholeTable([])
    .filter(({ doing }) => doing.startsWith("add set"))
    .map(({ body }) => Buffer.from(body).toString("hex"));
  const dport = "000407000000010c000406000000010402000000";
  const vni = "000407000000011e00040000000001040000000002040300000003046000000004041800000";
  expect(ours).toContain("08000400000003440800050000000008");
  expect(ours).toContain(`000400000000034600040d000000013e0014${dport}0126${vni}`);
  expect(peers4).toContain("0800040000007344080005000000000c");
  expect(peers4).toContain(
    `000400000000035c00040d00000001540014000407000000010c00040c00000001040b0000000114${dport}0226${vni}`,
  );
  expect(peers6).toContain("08000400000083440800050000000018");
  expect(peers6).toContain("0014000407000000010c00040d000000010408000000");
});

test("the rule that drops counts first", () => {
  const rule = wholeTable([]).findLast(({ doing }) => doing.startsWith("add rule"));
  expect(Buffer.from(rule?.body ?? []).toString("hex")).toBe(
    "01000000" +
      "080001006e736d00" +
      "0a000200636865636b000000" +
      "48000480" +
      "14000180" +
      "0c000100636f756e74657200" +
      "04000280" +
      "30000180" +
      "0e000100696d6d656469617465000000" +
      "1c000280" +
      "0800010000000000" +
      "10000280" +
      "0c000280" +
      "0800010000000000",
  );
});
