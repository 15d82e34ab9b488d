import { create } from "@bufbuild/protobuf";
import { expect, expectTypeOf, test } from "vitest";
import {
  JWTSVIDRequestSchema,
  SpiffeWorkloadAPI,
  X509SVIDResponseSchema,
} from "../../api/gen/workload_pb.js";
import type { JWTSVIDRequest, JWTSVIDResponse, X509SVIDResponse } from "../../api/gen/workload_pb.js";
import { methodDefinition } from "./service.ts";
import type { Calls } from "./service.ts";

test("a service without package has paths without a dot", () => {
  expect(SpiffeWorkloadAPI.methods.map((method) => methodDefinition(method).path)).toEqual([
    "/SpiffeWorkloadAPI/FetchX509SVID",
    "/SpiffeWorkloadAPI/FetchX509Bundles",
    "/SpiffeWorkloadAPI/FetchJWTSVID",
    "/SpiffeWorkloadAPI/FetchJWTBundles",
    "/SpiffeWorkloadAPI/ValidateJWTSVID",
  ]);
  const { fetchX509SVID, fetchJWTSVID } = SpiffeWorkloadAPI.method;
  expect(methodDefinition(fetchX509SVID)).toMatchObject({ requestStream: false, responseStream: true });
  expect(methodDefinition(fetchJWTSVID)).toMatchObject({ requestStream: false, responseStream: false });
});

test("messages keep fields that this version does not know", () => {
  const method = methodDefinition(SpiffeWorkloadAPI.method.fetchJWTSVID);
  const unknown = Buffer.from("ea0703616263", "hex");
  const request = create(JWTSVIDRequestSchema, { audience: ["a"] });
  const bytes = Buffer.concat([method.requestSerialize(request), unknown]);
  expect(method.requestSerialize(method.requestDeserialize(bytes))).toEqual(bytes);
});

test("calls are typed by the kind of the method", () => {
  type Workload = Calls<typeof SpiffeWorkloadAPI, { readonly signal: AbortSignal }>;
  expectTypeOf<Workload["fetchJWTSVID"]>().parameter(0).toEqualTypeOf<JWTSVIDRequest>();
  expectTypeOf<Workload["fetchJWTSVID"]>().returns.toEqualTypeOf<Promise<JWTSVIDResponse>>();
  expectTypeOf<Workload["fetchX509SVID"]>().returns.toEqualTypeOf<AsyncIterable<X509SVIDResponse>>();
  const bytes = methodDefinition(SpiffeWorkloadAPI.method.fetchX509SVID).responseSerialize(
    create(X509SVIDResponseSchema),
  );
  expect(bytes).toHaveLength(0);
});
