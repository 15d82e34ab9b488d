/** Code of processes that tests start again and again, kept compiled: half of what their start costs is reading TypeScript. */
import { dirname, join } from "node:path";

const root = dirname(dirname(import.meta.dirname));

/** For the environment of a process. One that is killed keeps what it has compiled if it calls `flushCompileCache` once it has loaded. */
export const COMPILE_CACHE = { NODE_COMPILE_CACHE: join(root, "node_modules/.cache/nsm-test") };
