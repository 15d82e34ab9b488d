/**
 * Label substitution in selector values: `{{.label}}` (docs/protocol.md, "Matching").
 *
 * The notation is a small part of Go's text/template, and only label access is understood: a selector comes from whoever may
 * write a NetworkService and the labels from any client, so nothing here may compute, loop or grow.
 */

/** Labels as they are on the wire. Keys are looked up as own properties only (`constructor` is a label like any other). */
export type Labels = Readonly<Record<string, string>>;

/** A rendered value above this is not used; no label may be longer. */
const LONGEST_VALUE_BYTES = 253;
/** What an absent label renders as in the dotted form. */
const NO_VALUE = "<no value>";

/** `{{`, an optional trim mark, `.key` or `$.key` (a path as far as the grammar goes) or `index . "key"`, trim mark, `}}`. */
const ACTION =
  /\{\{(-[ \t\r\n])?[ \t\r\n]*(?:\$?((?:\.(?![0-9])[\p{L}\p{Nd}_]+)+)|index[ \t\r\n]+[.$][ \t\r\n]+(?:"([^"\\\n]*)"|`([^`]*)`))([ \t\r\n]+-)?[ \t\r\n]*\}\}/uy;

/** The label's value, or undefined when there is none. */
export function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

/**
 * `template` with labels put in. A template that is not understood, or whose result is longer than a label may be, is
 * returned as it is. An absent label reads as `<no value>` in the dotted form and as empty text in the `index` form.
 */
export function renderSelectorValue(template: string, labels: Labels): string {
  let result = "";
  let position = 0;
  let trimNext = false;
  for (;;) {
    const start = template.indexOf("{{", position);
    const text = template.slice(position, start < 0 ? undefined : start);
    const trimmed = trimNext ? text.replace(/^[ \t\r\n]+/, "") : text;
    if (start < 0) return fitting(result + trimmed, template);
    ACTION.lastIndex = start;
    const action = ACTION.exec(template);
    if (action === null) return template;
    const [, trimLeft, path, quoted, raw, trimRight] = action;
    const value = path === undefined ? (labelOf(labels, quoted ?? raw ?? "") ?? "") : field(labels, path);
    if (value === undefined) return template;
    result += (trimLeft === undefined ? trimmed : trimEnd(trimmed)) + value;
    trimNext = trimRight !== undefined;
    position = ACTION.lastIndex;
  }
}

/** `.key`; a longer path has no value below an absent label and is a mistake below a present one (undefined). */
function field(labels: Labels, path: string): string | undefined {
  const [key = "", ...below] = path.slice(1).split(".");
  const value = labelOf(labels, key);
  if (value === undefined) return NO_VALUE;
  return below.length === 0 ? value : undefined;
}

function fitting(result: string, template: string): string {
  return Buffer.byteLength(result) > LONGEST_VALUE_BYTES ? template : result;
}

/** Without a regular expression: `/[ ]+$/` takes quadratic time on long runs of blanks. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && " \t\r\n".includes(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

/**
 * Whether every label of `selector` is among the labels `of`, literally or after rendering with `values` (default `of`).
 *
 * An absent label counts as empty text, so `{zone: ""}` fits labels without `zone`; but a selector with more entries than
 * there are labels never fits.
 */
export function isSubset(selector: Labels, of: Labels, values: Labels = of): boolean {
  const wanted = Object.entries(selector);
  if (wanted.length > Object.keys(of).length) return false;
  return wanted.every(([key, value]) => {
    const actual = labelOf(of, key) ?? "";
    return actual === value || (value.includes("{{") && actual === renderSelectorValue(value, values));
  });
}
