/** Network services from a file of manifests: what administrators define, with matches (docs/protocol.md, "Registry"). */
import { create } from "@bufbuild/protobuf";
import * as z from "zod";
import { NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { NetworkService } from "../api/gen/registry_pb.js";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { checkServiceLimits } from "../sdk/limits.ts";
import type { Logger } from "../sdk/log.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { oneAtATime } from "../sdk/one-at-a-time.ts";
import type { Registries, RegistryContext } from "../sdk/registry/registry.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import { readYaml, schemaFaults } from "../sdk/yaml.ts";
import type { YamlDocument } from "../sdk/yaml.ts";

const labels = z.record(z.string(), z.coerce.string()).nullish();
const domain = z.string().regex(/^[^@\s*]+$/, { error: "is no name of a domain" });
const domainOrEvery = z
  .string()
  .regex(/^(\*|[^@\s*]+)$/, { error: "is no name of a domain, nor '*' for every one" });
const Manifest = z.object({
  kind: z.literal("NetworkService"),
  metadata: z.object({ name: z.string().min(1) }),
  spec: z
    .strictObject({
      name: z.string().nullish(),
      payload: z.enum(["IP", "ETHERNET"]).default("IP"),
      matches: z
        .array(
          z.strictObject({
            source_selector: labels,
            fallthrough: z.boolean().nullish(),
            metadata: z.strictObject({ labels }).nullish(),
            routes: z
              .array(
                z.strictObject({
                  destination_selector: labels,
                  weight: z.number().int().min(0).max(0xffffffff).nullish(),
                }),
              )
              .nullish(),
          }),
        )
        .nullish(),
      exportTo: z.array(domainOrEvery).nullish(),
      acceptEndpointsFrom: z.array(domainOrEvery).nullish(),
      importFrom: z.array(domain).nullish(),
    })
    .default({ payload: "IP" }),
});

/** YAML documents of kind NetworkService, as Kubernetes has them. Throws INVALID_ARGUMENT `bad-network-services` that names the line. */
export function parseNetworkServices(text: string): readonly NetworkService[] {
  const services = readYaml(text).flatMap((document) => {
    const [fault] = document.faults;
    if (fault !== undefined) throw bad(`${fault.place}: ${fault.message}`);
    return document.value === null ? [] : [serviceOf(document)];
  });
  const twice = services.find(({ name }, i) => services.findIndex((each) => each.name === name) < i);
  if (twice !== undefined) throw bad(`network service ${twice.name} is defined twice`);
  return services;
}

function serviceOf(document: YamlDocument): NetworkService {
  const read = Manifest.safeParse(document.value);
  if (!read.success) throw bad(schemaFaults(document, read.error.issues).join("; "));
  const { metadata, spec } = read.data;
  try {
    const service = create(NetworkServiceSchema, {
      name: metadata.name,
      payload: spec.payload,
      exportTo: spec.exportTo ?? [],
      acceptEndpointsFrom: spec.acceptEndpointsFrom ?? [],
      importFrom: spec.importFrom ?? [],
      matches: (spec.matches ?? []).map((match) => ({
        sourceSelector: match.source_selector ?? {},
        fallthrough: match.fallthrough ?? false,
        routes: (match.routes ?? []).map((route) => ({
          destinationSelector: route.destination_selector ?? {},
          weight: route.weight ?? 0,
        })),
        ...(match.metadata && { metadata: { labels: match.metadata.labels ?? {} } }),
      })),
    });
    checkServiceLimits(service);
    return service;
  } catch (error) {
    throw bad(`${document.placeOf([])}: ${messageOf(error)}`);
  }
}

function bad(fault: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-network-services", `network services: ${fault}`);
}

/**
 * Registers what the file holds, and what it holds after each change, one change after the other. Rejects when the first cannot be registered;
 * what fails later is logged, and made good with the next change.
 */
export async function keepServices(
  path: string,
  registries: Pick<Registries, "services">,
  { spiffeId, clock, log }: Pick<Mesh, "spiffeId" | "clock"> & { readonly log: Logger },
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  let last: readonly NetworkService[] = [];
  const inTurn = oneAtATime();
  // Behind the file: what it has begun is waited for.
  stack.defer(() => inTurn(() => Promise.resolve()));
  const file = stack.use(
    await openWatchedFile({
      path,
      variable: "NSM_NETWORK_SERVICES_PATH",
      what: "network services",
      parse: parseNetworkServices,
      log,
      clock,
    }),
  );
  const put = async () => {
    const [before, now] = [last, file.current()];
    last = [...before, ...now]; // until all is well, both may be there
    await putServices(registries, spiffeId, now, before);
    last = now;
  };
  const report = (err: unknown) => log.error({ err, path }, "network services cannot be registered");
  stack.use(file.onChange(() => void inTurn(put).catch(report)));
  await inTurn(put);
  return stack.move();
}

/** Puts the services of the file in, in the name of `owner`; those that were in it before and no longer are, go. */
export async function putServices(
  { services }: Pick<Registries, "services">,
  owner: string,
  now: readonly NetworkService[],
  before: readonly NetworkService[],
): Promise<void> {
  const signal = new AbortController().signal;
  const ctx: RegistryContext = {
    signal,
    deadlineMs: undefined,
    peer: undefined,
    registration: { path: EMPTY_PATH },
  };
  const kept = new Set(now.map(({ name }) => name));
  for (const service of before) if (!kept.has(service.name)) await services.unregister(service, ctx);
  for (const service of now) {
    service.pathIds = [owner];
    await services.register(service, ctx);
  }
}
