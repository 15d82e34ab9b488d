import { expect, test } from "vitest";
import { pino } from "pino";
import { parseDomains } from "./domains-file.ts";
import { noteOfLink, warnOfHidden } from "./known-domains.ts";
import type { LinkRecord } from "./link/state.ts";

test("a domain of the file that a link hides is said once, and again when it is hidden again", () => {
  const lines: { domain?: string; msg: string }[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const west = parseDomains("domains: { west: { registry: 'tcp://192.0.2.1:1' } }").get("west");
  if (west === undefined) throw new Error("not there");
  const table = new Map([["west", west]]);
  const changed: { links?: () => void; table?: () => void } = {};
  let state: LinkRecord["state"] = "pending";
  const links = () => ["west", "north"].map((domain) => recordOf(domain, state));
  const store = {
    current: () => ({ version: 1, tokens: [], links: [], ended: [] }) as const,
    update: () => Promise.resolve(),
    onChange(listener: () => void) {
      changed.links = listener;
      return { [Symbol.dispose]: () => void delete changed.links };
    },
  };
  const known = {
    table: () => table,
    onTableChange(listener: () => void) {
      changed.table = listener;
      return { [Symbol.dispose]: () => void delete changed.table };
    },
  };
  const watching = warnOfHidden({ links, store }, known, log);
  expect(lines).toEqual([]);
  state = "linked";
  changed.links?.();
  changed.links?.();
  expect(lines).toMatchObject([{ domain: "west", msg: noteOfLink(known, "west") }]);
  expect(lines[0]?.msg).toContain("NSM_DOMAINS_PATH");
  table.delete("west");
  changed.table?.();
  table.set("west", west);
  changed.table?.();
  expect(lines).toHaveLength(2);
  expect(noteOfLink(known, "north")).toBe("");
  watching[Symbol.dispose]();
  expect(changed).toEqual({});
});

function recordOf(domain: string, state: LinkRecord["state"]): LinkRecord {
  return {
    id: domain,
    domain,
    trustDomain: `${domain}.nsm`,
    proxyId: `spiffe://${domain}.nsm/proxy`,
    addresses: [],
    dials: true,
    state,
    sinceMs: 0,
    bundle: "",
    gaveBundle: true,
  };
}
