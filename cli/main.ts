/** The `nsm` command line. Importing this file runs it: bin/nsm.js does. */
import { Command, CommanderError, Option } from "commander";
import { helpOf, nearest } from "../sdk/config.ts";
import type { Daemon } from "../sdk/daemon.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { DEFAULT_SCENARIOS, SCENARIOS } from "./demo/scenario-names.ts";
import { addAuthorityCommands } from "./authority-commands.ts";
import { addExportCommands } from "./domain-commands.ts";
import { ExitCode } from "./exit-code.ts";
import { addLinkCommands } from "./link-commands.ts";
import { addLookingCommands } from "./look.ts";
import { printableLines } from "./printable.ts";
import { roles } from "./roles.ts";
import type { Role } from "./roles.ts";
import { versionText } from "./version.ts";

/** Runs one command line (without `node` and the script) and resolves with its exit code. */
async function main(args: readonly string[]): Promise<number> {
  let code: number = ExitCode.ok;
  const program = new Command("nsm")
    .description("Network Service Mesh: virtual wires between workloads, authenticated by SPIFFE")
    .helpCommand("help [command]", "the same as nsm [command] --help")
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .enablePositionalOptions()
    .exitOverride();

  // Commander's own help command knows commands of the first level only.
  const words = args[0] === "help" ? [...args.slice(1), "--help"] : args;
  const asked = words.filter((word) => word !== "help" && !word.startsWith("-"));
  await addRoles(program, roles, asked, (result) => (code = result));
  await addLookingCommands(program, asked[0], (result) => (code = result));
  addLinkCommands(program, (result) => (code = result));
  addExportCommands(program, (result) => (code = result));
  addAuthorityCommands(program, (result) => (code = result));
  addDemo(program, (result) => (code = result));
  program
    .command("version")
    .summary("version of nsm, of Node and of the kernel")
    .action(() => console.log(versionText()));

  pointToHelp(program, "nsm");
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 || error.code === "commander.help" ? ExitCode.ok : ExitCode.badUsage;
  }
  return code;
}

/** Behind an error stands the help of the command that was meant. */
function pointToHelp(command: Command, words: string): void {
  command.showHelpAfterError(
    `(${words} --help lists ${command.commands.length > 0 ? "the commands" : "the options"})`,
  );
  for (const each of command.commands) pointToHelp(each, `${words} ${each.name()}`);
}

/** Only the daemon that was asked for is loaded. */
async function addRoles(
  above: Command,
  list: readonly Role[],
  [asked, ...rest]: readonly string[],
  finish: (code: number) => void,
): Promise<void> {
  for (const role of list) {
    const command = above.command(role.name).summary(role.summary).exitOverride();
    if (role.name !== asked) continue;
    const daemon = await role.load();
    describeDaemon(command, daemon)
      .allowExcessArguments()
      .action(async () => {
        const [word] = command.args;
        if (word !== undefined) command.error(unknownCommand(word, role.kinds ?? []));
        const { runDaemon } = await import("./run-daemon.ts");
        finish(await runDaemon(daemon, process.env));
      });
    await addRoles(command, role.kinds ?? [], rest, finish);
  }
}

function unknownCommand(word: string, known: readonly Role[]): string {
  const names = known.map(({ name }) => name);
  if (names.length === 0) return `error: unexpected argument '${word}': variables configure it, see --help`;
  return `error: unknown command '${word}'\n(Did you mean ${nearest(word, names)}?)`;
}

/** `--help` of a daemon comes from the table that also reads its environment. */
function describeDaemon(command: Command, daemon: Daemon): Command {
  return command
    .description(daemon.about)
    .usage("")
    .addHelpText("after", () => `\nEnvironment:\n${helpOf(daemon.table, process.stdout.columns)}`);
}

interface DemoWords {
  readonly scenario?: string;
  readonly keep?: true;
  readonly run?: string;
  readonly output: "text" | "json";
}

function addDemo(program: Command, finish: (code: number) => void): void {
  const output = () =>
    new Option("--output <format>", "text, or one JSON document on stdout with progress on stderr")
      .choices(["text", "json"])
      .default("text");
  const demo = program
    .command("demo")
    .summary("two clusters on this machine: connects, pings, shows the wires, cleans up")
    .description(
      "Runs a whole mesh in network namespaces of this machine: two clusters of two nodes, clients and endpoints, every part its own process. " +
        "Plays scenarios in it, shows what happened and removes everything. Needs root.",
    )
    .option("--scenario <names>", `what happens in it, comma-separated; all unless told:\n${scenarioHelp()}`)
    .option("--keep", "leave it running and print the commands to look around")
    .option("--run <name>", "name of this run (lower-case letters and digits, at most 8)")
    .addOption(output())
    .allowExcessArguments()
    .action(async (options: DemoWords, command: Command) => {
      const [word] = command.args;
      if (word !== undefined) command.error(`error: unknown command '${word}'\n(Did you mean down?)`);
      const { runDemo } = await import("./demo/main.ts");
      finish(
        await runDemo({
          scenarios: options.scenario ?? DEFAULT_SCENARIOS,
          keep: options.keep === true,
          run: options.run,
          json: options.output === "json",
        }),
      );
    });
  program
    .command("_probe", { hidden: true })
    .argument("<words...>")
    .action(async (words: readonly string[]) => {
      const { runProbe } = await import("./probe/main.ts");
      await runProbe(words);
    });
  demo
    .command("down")
    .summary("remove what a run made, also after a crash")
    .description("Ends the processes and removes the namespaces and directories of one run, or of all runs.")
    .option("--run <name>", "the run to remove, or all", "all")
    .addOption(output())
    .action(async (options: { run: string; output: "text" | "json" }) => {
      const { runDown } = await import("./demo/main.ts");
      finish(await runDown({ run: options.run, json: options.output === "json" }));
    });
}

function scenarioHelp(): string {
  return Object.entries(SCENARIOS)
    .map(([name, what]) => `    ${name}: ${what}`)
    .join("\n");
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  console.error(`nsm: ${printableLines(messageOf(error))}`);
  const misused = error instanceof NsmError && error.code === "INVALID_ARGUMENT";
  process.exit(misused ? ExitCode.badUsage : ExitCode.failed);
}
