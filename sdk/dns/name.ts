/** Domain names as texts: no dot at the end, compared in lower case (RFC 1035 §2.3, RFC 4343). Pure. */

const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/** In lower case without the dot at the end. Undefined for what is no name of a host or domain, and for the root. */
export function parseDomain(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, "");
  if (name.length > 253 || !name.split(".").every((label) => LABEL.test(label))) return undefined;
  return name;
}

/** True for the domain itself and for names below it. Both as `parseDomain` writes them. */
export function isWithin(name: string, domain: string): boolean {
  return name === domain || name.endsWith(`.${domain}`);
}
