/** What a supplier starts for a client: a command and variables with the client's labels put in. Pure. */
import * as z from "zod";
import { NsmError } from "../../sdk/errors.ts";
import { renderSelectorValue } from "../../sdk/selector-template.ts";

/** Words of a command, without a shell. */
export type Command = readonly string[];
export type Variables = Readonly<Record<string, string>>;

/** JSON list of words. Throws a text that says what is expected. */
export function parseCommand(text: string): Command {
  const read = z.array(z.string().min(1)).min(1).safeParse(parseJson(text));
  if (!read.success) throw new Error('expected a JSON list of words: ["nsm","nse"]');
  return read.data;
}

/** JSON object of texts. */
export function parseVariables(text: string): Variables {
  const read = z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).safeParse(parseJson(text));
  if (!read.success) throw new Error('expected a JSON object of variables: {"NSM_LABELS":"app:web"}');
  return read.data;
}

export interface Order {
  readonly command: Command;
  readonly env: Variables;
  /** Equal for orders that one endpoint serves. */
  readonly key: string;
}

/**
 * Templates are those of selectors: `{{.podName}}`. A word without a value for one of its labels is refused: it would become the
 * text `<no value>`. Throws FAILED_PRECONDITION `label-missing`.
 */
export function orderFor(command: Command, env: Variables, labels: Variables): Order {
  const rendered = command.map((word) => render(word, labels));
  const variables = Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, render(value, labels)]),
  );
  return { command: rendered, env: variables, key: JSON.stringify([rendered, variables]) };
}

function render(template: string, labels: Variables): string {
  if (!template.includes("{{")) return template;
  const text = renderSelectorValue(template, labels);
  if (text !== template && !text.includes("<no value>")) return text;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "label-missing",
    `${JSON.stringify(template)} needs a label that the client does not have: set it in the client's request`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
