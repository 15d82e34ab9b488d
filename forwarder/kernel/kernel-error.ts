/** What a refusal by the kernel means to the one who asked for the wire. */
import { NsmError } from "../../sdk/errors.ts";
import type { CodeName } from "../../sdk/errors.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";

/** `error` itself unless it is the kernel's. */
export function explainRefusal(error: unknown, wireId: string): unknown {
  if (!isKernelError(error)) return error;
  const [code, reason] = meaningOf(error.code, error.said);
  return new NsmError(code, reason, `wire ${wireId}: the kernel refused to ${error.message}`, error);
}

function meaningOf(errno: string, said: string): [CodeName, string] {
  if (/\bmtu\b/i.test(said)) return ["INVALID_ARGUMENT", "bad-mtu"];
  switch (errno) {
    case "EINVAL":
    case "ERANGE":
    case "ENETUNREACH":
    case "EHOSTUNREACH":
    case "EADDRNOTAVAIL":
      return ["INVALID_ARGUMENT", "refused-by-kernel"];
    case "ENOTSUP":
    case "EAFNOSUPPORT":
      return ["FAILED_PRECONDITION", "kernel-feature-missing"];
    case "EPERM":
      return ["INTERNAL", "forwarder-not-privileged"];
    case "ENOMEM":
    case "ENOBUFS":
    case "EMFILE":
      return ["RESOURCE_EXHAUSTED", "kernel-resources"];
    case "EADDRINUSE":
      return ["UNAVAILABLE", "port-busy"];
    case "ENODEV":
      return ["ABORTED", "interface-gone"];
    default:
      return ["INTERNAL", "refused-by-kernel"];
  }
}
