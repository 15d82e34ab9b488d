/** What a supplier starts for a client: a command and variables with the client's labels put in. Pure. */
import * as z from "zod";
import { NsmError } from "../../sdk/errors.ts";
import { renderSelectorValue } from "../../sdk/selector-template.ts";

/** Words of a command, without a shell. */
export type Command = readonly string[];
export type Variables = Readonly<Record<string, string>>;

/** Variables by which loaders and interpreters choose what code runs: a client's label there would be a client's program. */
const CHOOSES_CODE =
  /^(?:PATH|IFS|ENV|BASH_ENV|BASH_FUNC_.*|SHELLOPTS|GLIBC_TUNABLES|GCONV_PATH|(?:LD|DYLD|NODE|PYTHON|PERL5?|RUBY|JAVA|_JAVA|JDK_JAVA)(?:_?.*))$/;
/** Programs whose argument is a program: `sh -c "echo {{.label}}"` runs whatever the label says. */
const INTERPRETER =
  /(?:^|\/)(?:(?:ba|da|k|z|fi|c|tc|a)?sh|busybox|env|xargs|eval|awk|sed|perl|ruby|php|lua|python[\d.]*)$/;

/** As Kubernetes has them. What separates entries of our variables is no part of it. */
const PLAIN = /^[A-Za-z0-9._-]*$/;

/** JSON list of words. Throws a text that says what is expected: a client's label chooses neither the program nor its code. */
export function parseCommand(text: string): Command {
  const read = z.array(z.string().min(1)).min(1).safeParse(parseJson(text));
  if (!read.success) throw new Error('expected a JSON list of words: ["nsm","nse"]');
  const [program = ""] = read.data;
  if (isTemplate(program))
    throw new Error(
      `the program ${JSON.stringify(program)} would be of a client's choice: name it without {{}}`,
    );
  const word = read.data.find(isTemplate);
  if (word !== undefined && read.data.some((each) => INTERPRETER.test(each)))
    throw new Error(
      `${JSON.stringify(word)} would become code of a client's choice in an interpreter: hand the label over by a variable (NSM_SUPPLY_ENV)`,
    );
  return read.data;
}

/** JSON object of texts. */
export function parseVariables(text: string): Variables {
  const read = z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).safeParse(parseJson(text));
  if (!read.success) throw new Error('expected a JSON object of variables: {"NSM_LABELS":"app:web"}');
  for (const [name, value] of Object.entries(read.data))
    if (isTemplate(value) && CHOOSES_CODE.test(name))
      throw new Error(
        `${name} decides which code runs, and would be of a client's choice: set it without {{}}`,
      );
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
 * text `<no value>`; and so is one that a label would make an option, and a list or map of ours to which it would add entries. Throws
 * FAILED_PRECONDITION `label-missing`, `label-is-option`, `label-not-plain`.
 */
export function orderFor(command: Command, env: Variables, labels: Variables): Order {
  const rendered = command.map((word) => refuseOption(word, render(word, labels)));
  const variables = Object.fromEntries(
    Object.entries(env).map(([name, value]) => {
      const text = render(value, labels);
      if (name.startsWith("NSM_")) refuseSyntax(name, value, text, labels);
      return [name, text];
    }),
  );
  return { command: rendered, env: variables, key: JSON.stringify([rendered, variables]) };
}

function isTemplate(text: string): boolean {
  return text.includes("{{");
}

function refuseOption(template: string, word: string): string {
  if (!word.startsWith("-") || template.startsWith("-")) return word;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "label-is-option",
    `${JSON.stringify(template)} would become the option ${JSON.stringify(word.slice(0, 80))}: no label here begins with "-"`,
  );
}

/** `app:{{.app}}` is one label of the endpoint's, whatever the client's is. */
function refuseSyntax(variable: string, template: string, text: string, labels: Variables): void {
  const plain = Object.entries(labels).map(([key, value]) => [key, PLAIN.test(value) ? value : ""]);
  if (!isTemplate(template) || renderSelectorValue(template, Object.fromEntries(plain)) === text) return;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "label-not-plain",
    `${variable} takes labels of letters, digits, dots, dashes and underscores alone: ${JSON.stringify(template)} would become ${JSON.stringify(text.slice(0, 80))}`,
  );
}

function render(template: string, labels: Variables): string {
  if (!isTemplate(template)) return template;
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
