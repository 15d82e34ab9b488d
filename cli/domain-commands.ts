/** The commands about other domains, as the command line knows them. */
import { Option } from "commander";
import type { Command } from "commander";
import { helpOf } from "../sdk/config.ts";
import { proxyClientTable } from "./proxy-client.ts";

export function addExportCommands(program: Command, finish: (code: number) => void): void {
  interface Options {
    readonly to?: string;
    readonly acceptEndpoints?: true;
    readonly list?: true;
    readonly output?: "table" | "json" | "yaml";
    readonly proxy?: string;
  }
  program
    .command("export")
    .summary("let another domain use a network service of this one")
    .description(
      "Lets another domain see and use a network service of this one, from now on and after restarts of the proxy. Nothing is exported by itself. " +
        "What the registry's services say (spec.exportTo) counts, too. Needs an operator's SPIFFE identity.",
    )
    .argument(
      "[service]",
      "the network service; one of another domain in which endpoints of this one are registered is service@domain",
    )
    .option("--to <domain>", "the domain, or '*' for every one that is linked or otherwise known")
    .option("--accept-endpoints", "it may register endpoints of the service here, too")
    .option("--list", "list what is exported")
    .addOption(outputOption())
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async (service: string | undefined, options: Options, command: Command) => {
      const { to, acceptEndpoints, list, output, proxy } = options;
      const { runExport, runListExports } = await import("./export.ts");
      if (list === true) {
        if (service !== undefined || to !== undefined || acceptEndpoints === true)
          command.error("error: --list takes no service, and neither --to nor --accept-endpoints");
        finish(await runListExports({ output: output ?? "table", proxy }));
      } else if (output !== undefined) command.error("error: --output is for --list");
      else if (service === undefined || to === undefined)
        command.error("error: name a service and --to a domain, or --list");
      else {
        const isAccepting = acceptEndpoints === true;
        finish(await runExport({ service, domain: to, acceptEndpoints: isAccepting, proxy }));
      }
    });
  program
    .command("unexport")
    .summary("take that back")
    .description(
      "Takes exports of a network service back. The wires of those domains to it are closed at once. Needs an operator's SPIFFE identity.",
    )
    .argument("<service>", "the network service")
    .option("--from <domain>", "this domain alone; '*' takes back what was for every one")
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async (service: string, { from, proxy }: { from?: string; proxy?: string }) => {
      const { runUnexport } = await import("./export.ts");
      finish(await runUnexport({ service, domain: from, proxy }));
    });
}

function outputOption(): Option {
  return new Option("-o, --output <format>", "how the list is printed; table unless told").choices([
    "table",
    "json",
    "yaml",
  ]);
}

function proxyOption(): Option {
  return new Option("--proxy <url>", "the proxy's admin socket: unix:///path");
}

function environment(): string {
  return `\nEnvironment:\n${helpOf(proxyClientTable, process.stdout.columns)}`;
}
