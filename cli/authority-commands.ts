/** The commands about the keys of the built-in identity authority, as the command line knows them. */
import { Option } from "commander";
import type { Command } from "commander";
import { Defaults } from "../sdk/defaults.ts";

interface Words {
  readonly stateDir: string;
}

export function addAuthorityCommands(program: Command, finish: (code: number) => void): void {
  const authority = program
    .command("authority")
    .summary("keys of the built-in identity authority: look, rotate, withdraw")
    .description(
      "The keys of the identity authority that runs on this machine. It is asked by a socket beside them, which only root and its own user can open.",
    );
  const below = (words: string, summary: string) =>
    authority
      .command(words)
      .summary(summary)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
      .option(
        "--state-dir <directory>",
        "the authority's NSM_IDENTITY_STATE_DIR",
        process.env["NSM_IDENTITY_STATE_DIR"] || Defaults.identityStateDir,
      );
  below("list", "which keys are published, and which of them signs")
    .addOption(
      new Option("-o, --output <format>", "how they are printed")
        .choices(["table", "json", "yaml"])
        .default("table"),
    )
    .action(async ({ stateDir, output }: Words & { readonly output: "table" | "json" | "yaml" }) => {
      const { runListKeys } = await import("./authority.ts");
      finish(await runListKeys(stateDir, output));
    });
  below("bundle", "the SPIFFE bundle document that is published, for other trust domains").action(
    async ({ stateDir }: Words) => {
      const { runBundle } = await import("./authority.ts");
      finish(await runBundle(stateDir));
    },
  );
  below("rotate", "make the next keys, which sign as soon as everybody knows them")
    .option("--at-once", "sign with them in a second; other domains refuse that until they have asked")
    .action(async ({ stateDir, atOnce }: Words & { readonly atOnce?: true }) => {
      const { runRotate } = await import("./authority.ts");
      finish(await runRotate(stateDir, atOnce === true));
    });
  below("withdraw", "end the trust in keys within a second, whatever is signed with them")
    .argument("<keys>", "their id, as nsm authority list shows it")
    .action(async (id: string, { stateDir }: Words) => {
      const { runWithdraw } = await import("./authority.ts");
      finish(await runWithdraw(stateDir, id));
    });
}
