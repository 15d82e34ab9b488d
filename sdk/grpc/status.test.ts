import { Metadata } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { GrpcCode, NsmError } from "../errors.ts";
import type { CodeName } from "../errors.ts";
import { REFUSED, SESSION_OVER, errorOfStatus, statusOf } from "./status.ts";

const codes = Object.keys(GrpcCode).filter((name): name is CodeName => name !== "OK");

test.each(codes)("%s survives both ways", (name) => {
  const error = new NsmError(name, "some-reason", "what failed");
  const status = statusOf(error);
  expect(status.code).toBe(GrpcCode[error.code]);
  expect(errorOfStatus(status, "unix:///s")).toMatchObject({
    code: name,
    reason: "some-reason",
    message: "what failed",
  });
});

test("an error that is not ours tells nothing", () => {
  for (const error of [new Error("secret"), "secret", undefined])
    expect(statusOf(error)).toEqual({ code: GrpcCode.INTERNAL, details: "internal error" });
});

test("a peer without our trailer gets the code as reason, and its address in the message", () => {
  const status = { code: GrpcCode.PERMISSION_DENIED, details: "no sufficient privileges" };
  expect(errorOfStatus(status, "tcp://h:1")).toMatchObject({
    code: "PERMISSION_DENIED",
    reason: "permission-denied",
    message: "tcp://h:1: no sufficient privileges",
  });
});

test("of a connection that failed the reason is told, not what grpc-js says around it", () => {
  const details =
    "No connection established. Last error: Error: connect ENOENT /run/s.sock. Resolution note: ";
  const error = errorOfStatus({ code: GrpcCode.UNAVAILABLE, details }, "unix:///run/s.sock");
  expect(error.message).toBe("unix:///run/s.sock: connect ENOENT /run/s.sock");
});

test("a reason that is no word, and a code that is none, are not taken over", () => {
  const metadata = new Metadata();
  metadata.set("nsm-reason", "not a word");
  expect(errorOfStatus({ code: 99, details: "", metadata }, "u")).toMatchObject({
    code: "UNKNOWN",
    reason: "unknown",
  });
  expect(errorOfStatus(new TypeError("what"), "u")).toMatchObject({ code: "INTERNAL" });
});

test("long texts are cut and half surrogate pairs replaced, or grpc-js would throw", () => {
  const { details } = statusOf(new NsmError("ABORTED", "a", `${"x".repeat(2047)}😀`));
  expect(details).toHaveLength(2048);
  expect(() => encodeURI(details)).not.toThrow();
});

test("that nothing was done is grpc-js's word, not the peer's: it may have tried for its own next hop", () => {
  const refused = statusOf(new NsmError("UNAVAILABLE", REFUSED, "a session ended further on"));
  expect(errorOfStatus(refused, "u")).toMatchObject({ code: "UNAVAILABLE", reason: "unavailable" });
  for (const details of [
    "Stream refused by server",
    `No connection established. Last error: NsmError: ${SESSION_OVER}. …`,
  ])
    expect(errorOfStatus({ code: GrpcCode.UNAVAILABLE, details }, "u").reason).toBe(REFUSED);
});
