/** Rules of the house that no compiler checks: direction of imports, purity, size of files, self-containedness. */
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";

const root = dirname(import.meta.dirname);
const NOT_OURS = new Set(["node_modules", "dist", ".git", "vectors", ".cache"]);

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return NOT_OURS.has(entry.name) ? [] : filesBelow(path);
    return entry.isFile() ? [path] : [];
  });
}

const files = filesBelow(".").filter((path) => !path.startsWith("api/gen/"));
const sources = files.filter((path) => /\.(ts|js)$/.test(path));
const text = (path: string) => readFileSync(join(root, path), "utf8");

/** Import specifiers of a file: static, dynamic and re-exports. */
function importsOf(path: string): string[] {
  const pattern =
    /(?:^|\n)\s*(?:import|export)\b[^;"']*?\bfrom\s*["']([^"']+)["']|\bimport\s*\(?\s*["']([^"']+)["']/g;
  return [...text(path).matchAll(pattern)].map((match) => match[1] ?? match[2] ?? "");
}

/** The path in the repository that a relative import names. */
function target(path: string, specifier: string): string {
  return relative(root, join(root, dirname(path), specifier));
}

const DAEMONS = ["nsmgr", "forwarder", "nsc", "nse", "registry", "identity", "proxy"];
/** What each folder may import besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  api: [],
  sdk: ["api"],
  ...Object.fromEntries(DAEMONS.map((name) => [name, ["sdk", "api"]])),
  cli: [...DAEMONS, "sdk", "api"],
  test: ["cli", ...DAEMONS, "sdk", "api"],
};

describe("imports", () => {
  test("point only in one direction: test, cli -> daemons -> sdk -> api", () => {
    const wrong: string[] = [];
    for (const path of sources) {
      const folder = path.split("/")[0] ?? "";
      const allowed = MAY_IMPORT[folder];
      // A test beside the code may put its subject together with anything.
      if (allowed === undefined || path.endsWith(".test.ts")) continue;
      for (const specifier of importsOf(path).filter((name) => name.startsWith("."))) {
        const file = target(path, specifier);
        const to = file.split("/")[0] ?? "";
        if (to !== folder && !allowed.includes(to)) wrong.push(`${path} imports ${specifier}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("every source folder has its place in the direction", () => {
    const folders = new Set(
      sources.filter((path) => path.includes("/")).map((path) => path.split("/")[0] ?? ""),
    );
    expect([...folders].filter((name) => MAY_IMPORT[name] === undefined)).toEqual(["bin"]);
  });

  test("rooms of the forwarder import those below them", () => {
    const below = ["plan", "kernel", "elements", "watch"];
    const roomOf = (path: string) => /^forwarder\/([^/]+)\//.exec(path)?.[1];
    const upwards = sources
      .filter((path) => roomOf(path) !== undefined && !path.endsWith(".test.ts"))
      .flatMap((path) => importsOf(path).map((name) => [path, target(path, name)] as const))
      .filter(([path, to]) => below.indexOf(roomOf(to) ?? "") > below.indexOf(roomOf(path) ?? ""));
    expect(upwards).toEqual([]);
    expect(new Set(sources.map(roomOf))).toEqual(new Set([undefined, ...below]));
  });

  test.for([
    ["@grpc/grpc-js", /^sdk\/grpc\//],
    ["koffi", /^sdk\/native[^/]*\.ts$|^bin\/nsm\.js$/],
    ["commander", /^cli\//],
  ] as const)("%s stays behind its wrapper", ([library, home]) => {
    const elsewhere = sources
      .filter((path) => !home.test(path) && !path.endsWith(".test.ts") && !path.startsWith("test/"))
      .filter((path) => importsOf(path).some((name) => name === library || name.startsWith(`${library}/`)));
    expect(elsewhere).toEqual([]);
  });
});

test("pure modules have no I/O, no clock, no randomness and no environment of their own", () => {
  const pure = sources.filter(
    (path) =>
      !path.endsWith(".test.ts") &&
      (/^sdk\/netlink\/(?!socket\.ts)|^sdk\/ipam\/|^forwarder\/plan\//.test(path) ||
        ["sdk/path.ts", "sdk/match.ts", "sdk/prefix.ts", "sdk/address-kind.ts"].includes(path)),
  );
  const impure =
    /["']node:(fs|net|child_process|dgram|os|worker_threads|timers)|\bDate\.now\b|\bnew Date\(\)|Math\.random|randomBytes|randomUUID|performance\.now|process\.env|\bsetTimeout\b|native\.ts|clock\.ts/;
  const found = pure.flatMap((path) =>
    text(path)
      .replace(/import \{[ ,]*(isIP(v[46])?[ ,]*)+\} from "node:net"/, "")
      .split("\n")
      .flatMap((line, index) => (impure.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
  expect(found).toEqual([]);
});

test("no source file is longer than 400 lines", () => {
  const long = sources
    .map((path) => ({ path, lines: text(path).split("\n").length - 1 }))
    .filter(({ lines }) => lines > 400);
  expect(long).toEqual([]);
});

test("a source file opens by saying what it is", () => {
  const silent = sources.filter(
    (path) =>
      !path.endsWith(".test.ts") && !/^(#!.*\n)?(\/\*\*|\/\/|\/\*)/.test(text(path)) && path.includes("/"),
  );
  expect(silent).toEqual([]);
});

test("nothing in the repository mentions a folder outside it", () => {
  const outside = new RegExp(
    ["/work", "/(main|shared)|\\.\\./shar", "ed/|shared/(spec|design|vectors)"].join(""),
  );
  const mentions = files
    .filter((path) => /\.(ts|js|json|md|proto|ya?ml|sh)$|^\.ci\//.test(path) && path !== "package-lock.json")
    .filter((path) => outside.test(text(path)));
  expect(mentions).toEqual([]);
});
