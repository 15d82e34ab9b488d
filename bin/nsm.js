#!/usr/bin/env node
/**
 * The `nsm` command: finds a Node that can run the mesh, turns the compile cache on and hands over to cli/main.ts
 * (a checkout) or dist/nsm.js (the built package). Plain JavaScript that also loads under old versions of Node.
 */
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import module from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import v8 from "node:v8";

const NEEDED_MAJOR = 24;

const self = realpathSync(fileURLToPath(import.meta.url));
const root = dirname(dirname(self));

if (Number(process.versions.node.split(".")[0]) >= NEEDED_MAJOR) await run();
else restart(findNode() ?? complain());

async function run() {
  // Deletes of devices block a thread each for tens of milliseconds: four threads would make the next wires wait for them.
  if (process.argv[2] === "forwarder") process.env.UV_THREADPOOL_SIZE ??= "16";
  // The authority signs a few certificates an hour: memory counts for more than speed. Set before any of its code is loaded.
  if (process.argv[2] === "identity") v8.setFlagsFromString("--optimize-for-size");
  const cache = process.env.NODE_COMPILE_CACHE || join(root, "node_modules/.cache/nsm");
  module.enableCompileCache(cache);
  const source = join(root, "cli/main.ts");
  await import(pathToFileURL(existsSync(source) ? source : join(root, "dist/nsm.js")).href);
}

/** The Node that npm installed with this package: beside it, or hoisted above it. */
function findNode() {
  const name = `node-linux-${process.arch}`;
  for (let folder = root; folder !== "/"; folder = dirname(folder)) {
    const candidate = join(folder, "node_modules", name, "bin/node");
    if (existsSync(candidate)) return candidate;
  }
  return undefined;
}

function complain() {
  console.error(
    `nsm needs Node ${NEEDED_MAJOR} or newer and this is ${process.version}; the npm package ` +
      `node-linux-${process.arch}, which brings it, is not installed: run npm ci (without --omit=optional) in ${root}`,
  );
  process.exit(1);
}

/** Becomes the other Node where that is possible, so that no useless parent process stays; else is a thin parent. */
function restart(node) {
  const args = [...process.execArgv, self, ...process.argv.slice(2)];
  if (process.execve) process.execve(node, [node, ...args], process.env);
  try {
    exec(node, args);
  } catch (error) {
    process.emitWarning(`cannot replace this process (${error.message}), a parent process stays`);
  }
  stayAsParent(node, args);
}

/** execv(3): Node before 22.15 has no execve of its own. */
function exec(node, args) {
  const koffi = module.createRequire(self)("koffi");
  const libc = koffi.load(null);
  const fcntl = libc.func("int fcntl(int fd, int command, int value)");
  const F_SETFD = 2; // Node has marked its standard streams close-on-exec
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
  libc.func("int execv(const char *path, char **argv)")(node, [node, ...args, null]);
  throw new Error(`execv ${node} failed with errno ${koffi.errno()}`);
}

function stayAsParent(node, args) {
  const child = spawn(node, args, { stdio: "inherit" });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"])
    process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    console.error(`cannot start ${node}: ${error.message}`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}
