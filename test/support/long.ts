/**
 * How long a test takes part: `npm run test:long` runs every test file below test/ that imports this one, with NSM_TEST_LONG=1, so
 * that cuts, flapping and rotation last as long as the scenarios say; `npm test` runs the same tests shortened.
 */

export const isLong = process.env["NSM_TEST_LONG"] === "1";

/** `long` in the long suite, else `short`. */
export function shortOrLong<T>(short: T, long: T): T {
  return isLong ? long : short;
}
