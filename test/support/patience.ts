/** For every test of the plain projects: `vi.waitFor` gives up after one second, which is not much on a busy machine. */
import { vi } from "vitest";

const LIMIT_MS = 10_000;

const { waitFor } = vi;
vi.waitFor = (callback, options) =>
  waitFor(callback, typeof options === "number" ? options : { timeout: LIMIT_MS, ...options });
