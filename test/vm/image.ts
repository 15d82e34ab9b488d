/**
 * The guest's file system, unpacked by its kernel into memory: busybox, a few modules, Node, this repository's code in one bundle, and
 * the programs that the tests look with (ip, nft, wg), each with the libraries that this machine runs it with.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, realpathSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { build } from "esbuild";
import { findProgram } from "../../cli/requirements.ts";
import { encodeCpio } from "./cpio.ts";
import type { Entry } from "./cpio.ts";
import type { Packages } from "./packages.ts";

const root = dirname(dirname(import.meta.dirname));

/** Loaded by the guest's modprobe when the kernel asks for them, as on any machine. */
const MODULES = [
  "wireguard",
  "veth",
  "vxlan",
  "nf_tables",
  "nlmon",
  "bridge",
  "nft_masq",
  "nft_ct",
  "nft_chain_nat",
];
/** For the tests; the code under test starts none of them. */
const PROGRAMS = ["ip", "nft", "wg", "nsenter"];
const NODE_MODULES = ["koffi", "@koromix/koffi-linux-x64"];

/** Busybox's own commands; the first process of the guest runs the tests and then ends the machine. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
depmod
ip link set lo up
stty -F /dev/ttyS1 raw
export PATH=/usr/local/bin:/bin
/usr/local/bin/node /app/main.js >/dev/ttyS1 2>/dev/console
poweroff -f
`;

/** Writes the image into a file, about 150 MB, nearly all of it Node. `words` choose among the tests. */
export async function writeImage(fd: number, packages: Packages, words: readonly string[]): Promise<void> {
  const entries = withFolders([
    ...["proc", "sys", "dev", "run", "tmp", "etc"].map((path): Entry => ({ kind: "folder", path })),
    { kind: "file", path: "init", mode: 0o755, content: Buffer.from(INIT) },
    { kind: "link", path: "sbin", target: "bin" },
    file("bin/busybox", packages.busybox),
    ...modules(packages),
    ...withLibraries(process.execPath, "usr/local/bin/node"),
    ...PROGRAMS.flatMap((name) => withLibraries(required(name), `usr/local/bin/${name}`)),
    ...(await bundle()),
    { kind: "file", path: "app/words.json", mode: 0o644, content: Buffer.from(JSON.stringify(words)) },
    ...NODE_MODULES.flatMap((name) => tree(join(root, "node_modules", name), `app/node_modules/${name}`)),
  ]);
  for (const piece of encodeCpio(entries)) writeFileSync(fd, piece);
}

/** The guest's program and the one of its nodes. */
async function bundle(): Promise<Entry[]> {
  const guest = join(import.meta.dirname, "guest");
  const { outputFiles } = await build({
    entryPoints: [join(guest, "main.ts"), join(guest, "node-thread.ts")],
    outdir: "/app",
    bundle: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "node24",
    external: ["koffi"],
    banner: {
      js: 'import { createRequire as nsmRequire } from "node:module"; const require = nsmRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  return [
    { kind: "file", path: "app/package.json", mode: 0o644, content: Buffer.from('{"type":"module"}') },
    ...outputFiles.map((output): Entry => ({
      kind: "file",
      path: relative("/", output.path),
      mode: 0o644,
      content: output.contents,
    })),
  ];
}

/** With all that they depend on, by the field `depends` of their .modinfo sections. */
function modules({ kernel, release }: Packages): Entry[] {
  const folder = join(kernel, "lib/modules", release);
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const paths = new Map(
    files.filter((path) => path.endsWith(".ko")).map((path) => [moduleName(path), path] as const),
  );
  const wanted = new Set<string>();
  const add = (name: string): void => {
    const path = paths.get(moduleName(name));
    if (path === undefined) throw new Error(`kernel ${release} has no module ${name}`);
    if (wanted.has(path)) return;
    wanted.add(path);
    for (const needed of dependenciesOf(join(folder, path))) add(needed);
  };
  for (const name of MODULES) add(name);
  const builtin = ["modules.builtin", "modules.order"].filter((name) => existsSync(join(folder, name)));
  return [...wanted, ...builtin].map((path) => file(`lib/modules/${release}/${path}`, join(folder, path)));
}

function moduleName(path: string): string {
  return basename(path, ".ko").replaceAll("-", "_");
}

function dependenciesOf(path: string): string[] {
  const names = /\0depends=([^\0]*)\0/.exec(readFileSync(path, "latin1"))?.[1] ?? "";
  return names.split(",").filter((name) => name !== "");
}

/** A program and its libraries by ldd(1): at the same place as here, because the program's loader looks there. */
function withLibraries(from: string, path: string): Entry[] {
  const { stdout } = spawnSync("ldd", [from], { encoding: "utf8" });
  const libraries = [...stdout.matchAll(/(?:=> |^\s*)(\/\S+)/gm)].map(([, library = ""]) => library);
  return [file(path, from), ...libraries.map((library) => file(library.slice(1), library))];
}

function tree(from: string, path: string): Entry[] {
  return readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((source) => file(join(path, relative(from, source)), source));
}

function file(path: string, from: string): Entry {
  return { kind: "file", path, mode: 0o755, content: readFileSync(realpathSync(from)) };
}

/** Each entry once, after the folders that lead to it. */
function* withFolders(entries: readonly Entry[]): Generator<Entry> {
  const made = new Set<string>(["."]);
  const folders = function* (path: string): Generator<Entry> {
    if (made.has(path)) return;
    yield* folders(dirname(path));
    made.add(path);
    yield { kind: "folder", path };
  };
  for (const entry of entries) {
    if (made.has(entry.path)) continue;
    yield* folders(dirname(entry.path));
    made.add(entry.path);
    yield entry;
  }
}

function required(program: string): string {
  const path = findProgram(program);
  if (path === undefined) throw new Error(`${program} is not installed`);
  return path;
}
