/** `nsm demo` and `nsm demo down`. */
export async function runDemo(o: unknown): Promise<number> {
  console.log(o);
  return 0;
}
export async function runDown(o: unknown): Promise<number> {
  console.log(o);
  return 0;
}
