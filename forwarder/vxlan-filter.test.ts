import { expect, test } from "vitest";
import { openVxlanFilter, wholeTable } from "./vxlan-filter.ts";

const entry = (vni: number, remoteIp = "10.9.0.2") => ({ port: 4789, vni, remoteIp });

async function open(
  found: [string, ReturnType<typeof entry>][] = [],
  refuse: (script: string) => boolean = () => false,
) {
  const scripts: string[] = [];
  const filter = await openVxlanFilter(new Map(found), async (script) => {
    scripts.push(script);
    if (refuse(script)) throw new Error("refused");
  });
  return { filter, scripts };
}

test("at start a left-over table goes", async () => {
  const { scripts } = await open();
  expect(scripts).toEqual([`${wholeTable([])}delete table inet nsm\n`]);
});

test("at start the table is that of the wires that were found", async () => {
  const { scripts } = await open([["a", entry(1)]]);
  expect(scripts[1]).toContain(
    "add element inet nsm ours { 4789 . 1 }\nadd element inet nsm peers4 { 10.9.0.2 . 4789 . 1 }\n",
  );
});

test("the table comes with the first wire and goes with the last; between them only elements change", async () => {
  const { filter, scripts } = await open();
  scripts.length = 0;
  await filter.allow("a", entry(1));
  await filter.allow("a", entry(1));
  await filter.allow("b", entry(2, "fd09::2"));
  await filter.allow("b", entry(3, "fd09::2"));
  await filter.forget("unknown");
  await filter.forget("a");
  await filter.forget("b");
  expect(scripts).toEqual([
    wholeTable([entry(1)]),
    "add element inet nsm ours { 4789 . 2 }\nadd element inet nsm peers6 { fd09::2 . 4789 . 2 }\n",
    "delete element inet nsm ours { 4789 . 2 }\ndelete element inet nsm peers6 { fd09::2 . 4789 . 2 }\n" +
      "add element inet nsm ours { 4789 . 3 }\nadd element inet nsm peers6 { fd09::2 . 4789 . 3 }\n",
    "delete element inet nsm ours { 4789 . 1 }\ndelete element inet nsm peers4 { 10.9.0.2 . 4789 . 1 }\n",
    "table inet nsm\ndelete table inet nsm\n",
  ]);
});

test("when a step is refused the table is written as a whole", async () => {
  const { filter, scripts } = await open([["a", entry(1)]], (script) => script.startsWith("add element"));
  scripts.length = 0;
  await filter.allow("b", entry(2));
  expect(scripts[1]).toBe(wholeTable([entry(1), entry(2)]));
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
