/** Writes docs/metrics.md. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { documentOf } from "./document.ts";
import { meters } from "./meters.ts";

writeFileSync(join(import.meta.dirname, "../../docs/metrics.md"), documentOf(Object.values(meters)));
