/** The kinds of things that `nsm get` lists: where they come from and how they are shown. */
import type { ManagerAccess } from "./client.ts";
import { collect } from "./get-collect.ts";
import type { Collection } from "./get-collect.ts";
import {
  domainServiceColumns,
  domainServiceRows,
  endpointColumns,
  endpointRows,
  serviceColumns,
  serviceRows,
  wideEndpointColumns,
  wideServiceColumns,
} from "./get-registry.ts";
import { endpointsOf, servicesOf, servicesOfDomains, wiresOf } from "./get-sources.ts";
import {
  clientColumns,
  clientRows,
  wideClientColumns,
  wideWireColumns,
  wireColumns,
  wireRows,
} from "./get-wires.ts";
import type { Column } from "./table.ts";

/** A row with its type hidden, so that one loop serves all kinds. */
export interface Shown {
  readonly key: string;
  /** What a name on the command line is compared with. */
  readonly names: readonly string[];
  /** For JSON and YAML. */
  readonly value: object;
  /** Equal while nothing worth telling has changed. */
  readonly fingerprint: string;
  readonly cells: readonly string[];
}

export interface Listing {
  readonly collections: readonly Collection<unknown>[];
  /** In the order in which they are shown. */
  rows(): readonly Shown[];
}

export interface Kind {
  /** `wires`: the word of the command line, and the member of the JSON document. */
  readonly name: string;
  /** `wire`: the member of a change. */
  readonly one: string;
  readonly summary: string;
  /** Whether other managers know more than the one that is asked. */
  readonly isPerNode: boolean;
  /** Whether other domains have it, too. */
  readonly isOfDomains?: true;
  open(
    managers: readonly ManagerAccess[],
    wide: boolean,
    allDomains?: boolean,
  ): Listing & { readonly titles: readonly string[] };
}

export const kinds: readonly Kind[] = [
  {
    name: "wires",
    one: "wire",
    summary: "wires that pass the manager",
    isPerNode: true,
    open(managers, wide) {
      const collections = managers.map((manager) => collect(wiresOf(manager)));
      const columns = wide ? wideWireColumns : wireColumns;
      return {
        collections,
        titles: titlesOf(columns),
        rows: () =>
          wireRows(valuesOf(collections)).map((row) =>
            shown(row, columns, row.id, [row.id, row.client, row.service, row.endpoint, row.interface]),
          ),
      };
    },
  },
  {
    name: "clients",
    one: "client",
    summary: "workloads that have wires through the manager",
    isPerNode: true,
    open(managers, wide) {
      const collections = managers.map((manager) => collect(wiresOf(manager)));
      const columns = wide ? wideClientColumns : clientColumns;
      return {
        collections,
        titles: titlesOf(columns),
        rows: () =>
          clientRows(valuesOf(collections)).map((row) =>
            shown(row, columns, `${row.client}\n${row.node}`, [row.client]),
          ),
      };
    },
  },
  {
    name: "services",
    one: "service",
    summary: "network services of the mesh",
    isPerNode: false,
    isOfDomains: true,
    open([manager], wide, allDomains = false) {
      if (manager === undefined) throw new Error("no manager to ask");
      const services = collect(servicesOf(manager));
      const endpoints = collect(endpointsOf(manager));
      if (allDomains) {
        const others = collect(servicesOfDomains(manager));
        return {
          collections: [services, endpoints, others],
          titles: titlesOf(domainServiceColumns),
          rows: () =>
            domainServiceRows(serviceRows(services.values(), endpoints.values()), others.values()).map(
              (row) =>
                shown(row, domainServiceColumns, `${row.name}@${row.domain}`, [
                  row.name,
                  `${row.name}@${row.domain}`,
                ]),
            ),
        };
      }
      const columns = wide ? wideServiceColumns : serviceColumns;
      return {
        collections: [services, endpoints],
        titles: titlesOf(columns),
        rows: () =>
          serviceRows(services.values(), endpoints.values()).map((row) =>
            shown(row, columns, row.name, [row.name]),
          ),
      };
    },
  },
  {
    name: "endpoints",
    one: "endpoint",
    summary: "endpoints and forwarders that are registered in the mesh",
    isPerNode: false,
    open([manager], wide) {
      if (manager === undefined) throw new Error("no manager to ask");
      const endpoints = collect(endpointsOf(manager));
      const columns = wide ? wideEndpointColumns : endpointColumns;
      return {
        collections: [endpoints],
        titles: titlesOf(columns),
        rows: () =>
          endpointRows(endpoints.values()).map((row) =>
            shown(row, columns, row.name, [row.name, ...row.services]),
          ),
      };
    },
  },
];

function valuesOf<T>(collections: readonly Collection<T>[]): T[] {
  return collections.flatMap((each) => each.values());
}

function titlesOf<R>(columns: readonly Column<R>[]): readonly string[] {
  return columns.map(({ title }) => title);
}

/** When something expires changes with each renewal, and tells nothing new. */
function shown<R extends object>(
  row: R,
  columns: readonly Column<R>[],
  key: string,
  names: readonly string[],
): Shown {
  const fingerprint = JSON.stringify(row, (member, value: unknown) =>
    member === "expires" ? undefined : value,
  );
  return { key, names, value: row, fingerprint, cells: columns.map(({ value }) => value(row)) };
}

/** True when one of the names on the command line fits: `*` stands for anything; the key may be cut after 4 characters or more. */
export function isAsked({ names, key }: Pick<Shown, "names" | "key">, asked: readonly string[]): boolean {
  if (asked.length === 0) return true;
  return asked.some(
    (pattern) =>
      (pattern.length >= 4 && key.startsWith(pattern)) ||
      names.some((name) => globPattern(pattern).test(name)),
  );
}

function globPattern(pattern: string): RegExp {
  const parts = pattern.split("*").map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`);
}
