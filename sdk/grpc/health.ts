/** The health checking protocol of gRPC (grpc/doc/health-checking.md). What is registered is serving until the server stops. */
import { create } from "@bufbuild/protobuf";
import {
  Health,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../api/gen/health_pb.js";
import { NsmError } from "../errors.ts";
import type { Handlers } from "./handlers.ts";

/** `names` are read at each call; the empty name, the server as a whole, always serves. */
export function healthHandlers(names: ReadonlySet<string>): Handlers<typeof Health> {
  const serves = (name: string) => name === "" || names.has(name);
  return {
    check({ service }) {
      if (serves(service))
        return Promise.resolve(create(HealthCheckResponseSchema, { status: ServingStatus.SERVING }));
      return Promise.reject(
        new NsmError(
          "NOT_FOUND",
          "unknown-service",
          `health of service ${JSON.stringify(service)} is not known`,
        ),
      );
    },
    async *watch({ service }, { signal }) {
      const status = serves(service) ? ServingStatus.SERVING : ServingStatus.SERVICE_UNKNOWN;
      yield create(HealthCheckResponseSchema, { status });
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
        if (signal.aborted) resolve();
      });
    },
  };
}

export { Health };
