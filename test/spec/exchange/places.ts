/** Where the components of a recording are: their addresses as ours would dial them, and their network namespaces. */
import { componentOf, methodOf, requestOf } from "./recording.ts";
import type { RecordedCase, RecordedComponent } from "./recording.ts";
import { toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";

export interface Places {
  /** How a process of that node reaches the component. */
  urlOf(name: string): string;
  /** The component behind an address, as registered, published or rewritten by a manager. */
  componentAt(url: string): RecordedComponent | undefined;
  /** A recorded record's address as our code knows it: descriptors of sockets become paths (D32). */
  toOurs(url: string): string;
  /** The address without the way in which it was told. */
  plain(url: string): string;
}

export function createPlaces(recorded: RecordedCase): Places {
  const byInode = new Map(
    recorded.calls.flatMap((call): [string, string][] => {
      if (!call.method.endsWith("/Register")) return [];
      const url = memberOf(toJson(methodOf(call).input, requestOf(call)), "url");
      return typeof url === "string" && url.startsWith("inode:") ? [[url, call.client]] : [];
    }),
  );
  const socketOf = (name: string) => `unix:///${name}.sock`;
  const toOurs = (url: string) => {
    const name = byInode.get(url);
    return name === undefined ? url : socketOf(name);
  };
  return {
    toOurs,
    plain: (url) => toOurs(url).replace(/^unix:\/\/\/proc\/\d+\/root\//, "unix:///"),
    urlOf(name) {
      const tcp = componentOf(recorded, name).listen?.find((url) => url.startsWith("tcp:"));
      const hasSocket = componentOf(recorded, name).listen?.includes("unix") ?? false;
      return hasSocket || tcp === undefined ? socketOf(name) : tcp;
    },
    componentAt(url) {
      const name = /^unix:\/\/\/(?:proc\/\d+\/root\/)?(.+)\.sock$/.exec(url)?.[1];
      return recorded.components.find(
        (component) => component.name === name || component.listen?.includes(url) === true,
      );
    },
  };
}

/** The TCP address under which a manager publishes what registers through it; its socket where it has none. */
export function publicUrlOf({ listen, name }: RecordedComponent): string {
  return listen?.find((url) => url.startsWith("tcp:")) ?? `unix:///${name}.sock`;
}

/** Empty for what is no text. */
export function textOf(value: JsonValue | undefined): string {
  return typeof value === "string" ? value : "";
}

export function memberOf(json: JsonValue | undefined, name: string): JsonValue | undefined {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined;
  return json[name];
}
