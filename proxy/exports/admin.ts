/** Exports, as operators list and change them (docs/protocol.md, "Exports"). */
import { create } from "@bufbuild/protobuf";
import {
  AddExportResponseSchema,
  ListExportsResponseSchema,
  RemoveExportsResponseSchema,
} from "../../api/gen/exports_pb.js";
import type { Exports as ExportsService } from "../../api/gen/exports_pb.js";
import { EVERY_DOMAIN } from "../../sdk/domains/exports.ts";
import type { Export, Exports } from "../../sdk/domains/exports.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Handlers } from "../../sdk/grpc/handlers.ts";
import type { Logger } from "../../sdk/log.ts";
import type { ExportStore } from "./store.ts";

export interface ExportsAdminOptions {
  readonly store: ExportStore;
  /** Those that services of the registry say of themselves. */
  readonly ofRegistry: Pick<Exports, "list">;
  readonly log: Logger;
}

export function exportsHandlers({
  store,
  ofRegistry,
  log,
}: ExportsAdminOptions): Handlers<typeof ExportsService> {
  return {
    list: () =>
      Promise.resolve(
        create(ListExportsResponseSchema, {
          exports: [
            ...store.list().map((each) => ({ export: each, ofRegistry: false })),
            ...ofRegistry.list().map((each) => ({ export: each, ofRegistry: true })),
          ],
        }),
      ),
    async add({ export: added }, { peer }) {
      if (added === undefined)
        throw new NsmError("INVALID_ARGUMENT", "bad-export", "no export is named: say service and domain");
      const { service, domain, acceptEndpoints } = added;
      await store.add({ service, domain, acceptEndpoints });
      log.info({ service, domain, acceptEndpoints, by: peer.spiffeId }, "exported");
      return create(AddExportResponseSchema);
    },
    async remove({ service, domain }, { peer }) {
      const removed = await store.remove(service, domain === "" ? undefined : domain);
      log.info({ service, domain, removed: removed.length, by: peer.spiffeId }, "no longer exported");
      const isLeft = (each: Export) =>
        each.service === service && (domain === "" || [domain, EVERY_DOMAIN].includes(each.domain));
      const remaining = [...store.list(), ...ofRegistry.list()].filter(isLeft);
      return create(RemoveExportsResponseSchema, { removed: [...removed], remaining });
    },
  };
}
