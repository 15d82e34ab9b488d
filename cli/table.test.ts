import { expect, test } from "vitest";
import { fitted, formatTable } from "./table.ts";

const rows = [
  { name: "nsm-1", address: "172.16.1.1", path: "client → nse" },
  { name: "nsm-22", address: "172.16.100.1", path: "client → nsmgr → nse" },
];
const columns = [
  { title: "NAME", value: (row: (typeof rows)[number]) => row.name },
  { title: "ADDRESS", value: (row: (typeof rows)[number]) => row.address },
];
const path = { title: "PATH", value: (row: (typeof rows)[number]) => row.path };

test("columns are as wide as their widest value, long facts go below", () => {
  expect(formatTable(rows, columns, [path], 80)).toEqual([
    "NAME    ADDRESS",
    "nsm-1   172.16.1.1",
    "    path client → nse",
    "nsm-22  172.16.100.1",
    "    path client → nsmgr → nse",
  ]);
});

test("a column that does not fit the terminal goes below its row", () => {
  expect(formatTable(rows, columns, [], 12)).toEqual([
    "NAME",
    "nsm-1",
    "    address 172.16.1.1",
    "nsm-22",
    "    address 172.16.100.1",
  ]);
});

test("a fact that does not fit goes on in the next line", () => {
  expect(formatTable(rows.slice(1), columns, [path], 22)).toEqual([
    "NAME    ADDRESS",
    "nsm-22  172.16.100.1",
    "    path client →",
    "      nsmgr → nse",
  ]);
});

test("a line is broken at spaces only, and no word is lost", () => {
  expect(fitted("  1.00 s  one two three", 12, "    ")).toEqual(["  1.00 s", "    one two", "    three"]);
  expect(fitted("a-word-without-end", 5)).toEqual(["a-word-without-end"]);
  expect(fitted("short", 5)).toEqual(["short"]);
});
