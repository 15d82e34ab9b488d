/**
 * Rules of the KERNEL parameter `IPTables4NatTemplate`, with the wire's interface and addresses put in
 * (docs/protocol.md, "Mechanisms").
 *
 * Understood: `{{.NsmInterfaceName}}`, `{{range .NsmSrcIPs}}…{{.}}…{{end}}` and `{{index .NsmSrcIPs 0}}`, likewise `.NsmDstIPs`.
 */
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../errors.ts";
import { formatAddress, parsePrefix } from "../prefix.ts";

const ACTION =
  /\{\{[ \t]*(?:(\.)|(\.NsmInterfaceName)|(end)|(range|index)[ \t]+\.Nsm(Src|Dst)IPs(?:[ \t]+([0-9]{1,3}))?)[ \t]*\}\}/y;

interface Values {
  readonly interfaceName: string;
  readonly Src: readonly string[];
  readonly Dst: readonly string[];
}

/** One rule per semicolon. Throws INVALID_ARGUMENT `bad-nat-template`, also for an address that the wire does not have. */
export function natRules(
  template: string | undefined,
  interfaceName: string,
  ipContext: IPContext | undefined,
): readonly string[] {
  if (template === undefined) throw bad("", "is absent");
  const values = {
    interfaceName,
    Src: addressesOf(ipContext?.srcIpAddrs ?? []),
    Dst: addressesOf(ipContext?.dstIpAddrs ?? []),
  };
  return render(template, values).split(";");
}

/** Without prefix lengths; what is no prefix is left out. */
function addressesOf(prefixes: readonly string[]): readonly string[] {
  return prefixes
    .map((text) => parsePrefix(text))
    .filter((prefix) => prefix !== undefined)
    .map((prefix) => formatAddress(prefix));
}

/** `item`: the address of the range that the text stands in. Ranges do not nest. */
function render(template: string, values: Values, item?: string): string {
  let result = "";
  let position = 0;
  for (;;) {
    const start = template.indexOf("{{", position);
    if (start < 0) return result + template.slice(position);
    result += template.slice(position, start);
    ACTION.lastIndex = start;
    const [, dot, name, end, list, side, index] = ACTION.exec(template) ?? [];
    position = ACTION.lastIndex;
    const addresses = side === "Src" ? values.Src : values.Dst;
    if (name !== undefined) result += values.interfaceName;
    else if (dot !== undefined && item !== undefined) result += item;
    else if (list === "index" && index !== undefined) result += addressAt(template, addresses, Number(index));
    else if (list === "range" && index === undefined && item === undefined) {
      const [body, after] = bodyOf(template, position);
      result += addresses.map((address) => render(body, values, address)).join("");
      position = after;
    } else throw bad(template, end === undefined ? "has an action that is not known" : "has an end too many");
  }
}

function addressAt(template: string, addresses: readonly string[], index: number): string {
  const address = addresses[index];
  if (address === undefined) throw bad(template, `asks for address ${index} of ${addresses.length}`);
  return address;
}

/** The text up to the range's end, and where it goes on. */
function bodyOf(template: string, from: number): readonly [string, number] {
  const end = /\{\{[ \t]*end[ \t]*\}\}/g;
  end.lastIndex = from;
  const found = end.exec(template);
  if (found === null) throw bad(template, "has a range without end");
  return [template.slice(from, found.index), end.lastIndex];
}

function bad(template: string, fault: string): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "bad-nat-template",
    `IPTables4NatTemplate ${JSON.stringify(template.slice(0, 200))} ${fault}`,
  );
}
