/** What the guest's program says, one JSON object a line. */
import { z } from "zod";

export const Report = z.discriminatedUnion("is", [
  z.object({ is: z.literal("passed"), name: z.string(), ms: z.number() }),
  z.object({ is: z.literal("failed"), name: z.string(), ms: z.number(), message: z.string() }),
  /** Something found out, for whoever reads the output. */
  z.object({ is: z.literal("note"), text: z.string() }),
  z.object({ is: z.literal("end") }),
]);
export type Report = z.infer<typeof Report>;
