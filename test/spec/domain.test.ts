/** Names with a domain as recorded. */
import { hasDomain, joinDomain, splitDomain } from "../../sdk/domains/name.ts";
import { describeVectors, same, vectorKind } from "./support.ts";

type DomainCase =
  | { readonly joinOf: readonly string[]; readonly join: string }
  | {
      readonly input: string;
      readonly is: boolean;
      readonly not: boolean;
      readonly target: string;
      readonly domain: string;
      readonly join: string;
    };

describeVectors("domain.json", {
  "": vectorKind((vector: DomainCase) => {
    if ("joinOf" in vector) {
      same("join", joinDomain(...vector.joinOf), vector.join);
      return;
    }
    const { target, domain } = splitDomain(vector.input);
    same("is", hasDomain(vector.input), vector.is);
    same("not", !hasDomain(vector.input), vector.not);
    same("target", target, vector.target);
    same("domain", domain, vector.domain);
    same("join", joinDomain(target, domain), vector.join);
  }),
});
