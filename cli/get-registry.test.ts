import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { domainServiceColumns, domainServiceRows, serviceRows } from "./get-registry.ts";
import { formatTable } from "./table.ts";

const service = (name: string, payload = "IP") => create(NetworkServiceSchema, { name, payload });

test("services of other domains stand behind the own ones, and a silent domain says why", () => {
  const others = [
    service("web@west", "ETHERNET"),
    service("@north", "domain north did not answer"),
    service("db@west"),
  ];
  const rows = domainServiceRows(serviceRows([service("own")], []), others);
  expect(rows.map(({ name, domain, fault }) => [name, domain, fault])).toEqual([
    ["own", "", undefined],
    ["", "north", "domain north did not answer"],
    ["db", "west", undefined],
    ["web", "west", undefined],
  ]);
  expect(formatTable(rows, domainServiceColumns, [], Infinity).map((line) => line.split(/ {2,}/))).toEqual([
    ["SERVICE", "DOMAIN", "PAYLOAD", "MATCHES", "REMARK"],
    ["own", "-", "IP", "any", "-"],
    ["-", "north", "-", "-", "no answer: domain north did not answer"],
    ["db", "west", "IP", "any", "-"],
    ["web", "west", "ETHERNET", "any", "-"],
  ]);
});
