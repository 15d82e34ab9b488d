/** Texts of strangers on somebody's terminal: names and labels are chosen by clients, reasons by peers. Pure. */

/** Control and format characters, and separators of lines: they move the cursor, colour, hide or reorder what is beside them. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
/** What JSON and YAML leave as it is in quoted texts, and terminals understand. */
const LEFT_IN_QUOTES = /[\u007f-\u009f]/g;

/** One line, in which such a character is its number: `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** The same for a text whose line breaks are meant. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** A JSON or YAML document that says the same. */
export function printableDocument(text: string): string {
  return text.replace(
    LEFT_IN_QUOTES,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
