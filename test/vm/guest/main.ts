/** The guest's one program: all tests of the virtual machine. */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { z } from "zod";
import { clockTests } from "./clock.ts";
import { runTests } from "./harness.ts";
import { otherTests } from "./others.ts";
import { pathTests } from "./paths.ts";
import { wireguardTests } from "./wireguard.ts";

/** Longest test, by the guest's clock. */
const LIMIT_MS = 3_600_000;

// Node starts its threads at the first asynchronous file operation; one started later could inherit a namespace of a test.
await stat("/proc/self");
const words = z.array(z.string()).parse(JSON.parse(readFileSync("/app/words.json", "utf8")));
await runTests([...wireguardTests, ...otherTests, ...pathTests, ...clockTests], words, LIMIT_MS);
// Whatever a failed test left open.
process.exit();
