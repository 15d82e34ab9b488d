/** Names with a domain, `target@domain`: services and endpoints of other clusters (docs/protocol.md, "Domains"). */

export interface DomainName {
  readonly target: string;
  /** Empty when the name has none. May hold further `@`. */
  readonly domain: string;
}

/** Splits at the first `@`. */
export function splitDomain(name: string): DomainName {
  const at = name.indexOf("@");
  return at < 0 ? { target: name, domain: "" } : { target: name.slice(0, at), domain: name.slice(at + 1) };
}

/** True for a name of another domain, also when the domain is empty (`service@`). */
export function hasDomain(name: string): boolean {
  return name.includes("@");
}

/** The inverse of `splitDomain` for names that have a domain. */
export function joinDomain(...parts: readonly string[]): string {
  return parts.join("@");
}
