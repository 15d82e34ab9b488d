/** Counts how calls end. */
import { codeOf } from "../errors.ts";

/** `count` gets OK or the gRPC code of what was thrown. */
export async function countCodes<T>(count: (code: string) => void, call: () => Promise<T>): Promise<T> {
  try {
    const result = await call();
    count("OK");
    return result;
  } catch (error) {
    count(codeOf(error));
    throw error;
  }
}
