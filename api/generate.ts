/** Generates api/gen from the .proto files beside it; `--check` only compares and fails on a difference. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const api = import.meta.dirname;
const bin = join(api, "../node_modules/.bin");
const gen = join(api, "gen");

function generate(out: string): void {
  const template = {
    version: "v2",
    plugins: [{ local: join(bin, "protoc-gen-es"), out, opt: ["target=js+dts", "import_extension=js"] }],
  };
  execFileSync(join(bin, "buf"), ["generate", "--template", JSON.stringify(template)], {
    cwd: api,
    stdio: "inherit",
    env: { ...process.env, PATH: `${bin}:${process.env["PATH"] ?? ""}` },
  });
}

function differences(fresh: string): string[] {
  const names = new Set([...readdirSync(fresh), ...readdirSync(gen)]);
  const read = (folder: string, name: string) => {
    try {
      return readFileSync(join(folder, name), "utf8");
    } catch {
      return undefined;
    }
  };
  return [...names].filter((name) => read(fresh, name) !== read(gen, name));
}

const fresh = mkdtempSync(join(tmpdir(), "nsm-generate-"));
try {
  generate(fresh);
  if (process.argv.includes("--check")) {
    const changed = differences(fresh);
    if (changed.length > 0) {
      console.error(`api/gen is not what the .proto files say: ${changed.join(", ")}; run: npm run generate`);
      process.exitCode = 1;
    }
  } else {
    rmSync(gen, { recursive: true, force: true });
    cpSync(fresh, gen, { recursive: true });
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
