/** Many calls, a few at a time. */

/** Runs `body` for 0 to `count - 1`, at most `width` at once; rejects with the first failure. */
export async function inParallel(
  count: number,
  width: number,
  body: (index: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const work = async () => {
    while (next < count) await body(next++);
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, work));
}
