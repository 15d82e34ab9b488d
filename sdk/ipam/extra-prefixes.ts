/** Whole prefixes that a client asks for besides its own address (docs/protocol.md, "Addresses (IPAM)"). */
import { IpFamily_Family } from "../../api/gen/connectioncontext_pb.js";
import type { ExtraPrefixRequest } from "../../api/gen/connectioncontext_pb.js";

/** True when the family is given, the length fits it, and at least one and at most the requested number is required. */
export function isExtraPrefixRequest(request: ExtraPrefixRequest): boolean {
  const { addrFamily, prefixLen, requiredNumber, requestedNumber } = request;
  if (addrFamily === undefined) return false;
  const longest = addrFamily.family === IpFamily_Family.IPV4 ? 32 : 128;
  return prefixLen >= 1 && prefixLen <= longest && requiredNumber >= 1 && requestedNumber >= requiredNumber;
}
