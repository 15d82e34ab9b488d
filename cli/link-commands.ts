/** The commands that link domains, as the command line knows them. */
import { Command, Option } from "commander";
import { helpOf } from "../sdk/config.ts";
import { proxyClientTable } from "./proxy-client.ts";

interface Options {
  readonly proxy?: string;
}

export function addLinkCommands(program: Command, finish: (code: number) => void): void {
  const link = program
    .command("link")
    .summary("link this cluster to another one: token, join, list, set-address, remove")
    .description(
      "Links the domain of this cluster to that of another one, so that each may use what the other exports.\n" +
        "On one cluster: nsm link token prints a line. On the other: nsm link join <that line>.\n" +
        "Make the token on the cluster whose proxy the other one can dial. Nothing is exported by a link alone: see nsm export.",
    );
  addToken(link, finish);
  addJoin(link, finish);
  link
    .command("list")
    .summary("the linked domains: state, round trip, age of their bundle, what is offered")
    .description(
      "Lists the domains that this one is linked with. STATE: up; down (calls to it fail at once, wires stay); pending (being made); leaving (being removed).",
    )
    .addOption(
      new Option("-o, --output <format>", "how they are printed")
        .choices(["table", "wide", "json", "yaml"])
        .default("table"),
    )
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async ({ output, proxy }: Options & { readonly output: "table" | "wide" | "json" | "yaml" }) => {
      const { runLinkList } = await import("./link.ts");
      finish(await runLinkList({ output, proxy }));
    });
  link
    .command("set-address")
    .summary("say where a linked domain can be dialled now")
    .description(
      "For a linked domain whose address has changed while it could not tell: the link stays what it is. " +
        "The proxy of that domain has to answer there, and shows by its certificate that it is the linked one; otherwise nothing changes.",
    )
    .argument("<domain>", "as nsm link list shows it")
    .argument("<address...>", "tcp://host:port, one or several, instead of those that are known")
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async (domain: string, addresses: readonly string[], { proxy }: Options) => {
      const { runLinkSetAddress } = await import("./link.ts");
      finish(await runLinkSetAddress(domain, addresses, { proxy }));
    });
  link
    .command("remove")
    .summary("end a link, on both sides")
    .description(
      "Ends the link with a domain, here and there: its certificates are trusted no more, sessions and wires between the two end.",
    )
    .argument("<domain>", "as nsm link list shows it")
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async (domain: string, { proxy }: Options) => {
      const { runLinkRemove } = await import("./link.ts");
      finish(await runLinkRemove(domain, { proxy }));
    });
}

function addToken(link: Command, finish: (code: number) => void): void {
  link
    .command("token")
    .summary("print a token with which one other cluster can join, once")
    .description(
      "Prints a token, alone on stdout. Whoever has it can link one domain with this one, once, until it expires: hand it over as you would a password. " +
        "It names the address of this cluster's proxy, which the other one must be able to dial (NSM_EXTERNAL_URL of the proxy).",
    )
    .option("--expires <duration>", "how long it is good for: 1s to 24h", "15m")
    .addOption(outputOption())
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(
      async ({
        expires,
        output,
        proxy,
      }: Options & { readonly expires: string; readonly output: "text" | "json" }) => {
        const { runLinkToken } = await import("./link.ts");
        finish(await runLinkToken({ expires, output, proxy }));
      },
    );
}

function addJoin(link: Command, finish: (code: number) => void): void {
  link
    .command("join")
    .summary("link this cluster with the one that made a token")
    .description(
      "Uses a token of another cluster. Ends with 0 once both domains trust each other and each has called the other; " +
        "when that fails, or is interrupted with Ctrl-C, everything is taken back on both sides.",
    )
    .argument(
      "<token>",
      "what nsm link token printed; - reads it from stdin, so that it is in no list of processes",
    )
    .addOption(outputOption())
    .addOption(proxyOption())
    .addHelpText("after", environment)
    .action(async (token: string, { output, proxy }: Options & { readonly output: "text" | "json" }) => {
      const { runLinkJoin } = await import("./link.ts");
      finish(await runLinkJoin(token, { output, proxy }));
    });
}

function outputOption(): Option {
  return new Option("-o, --output <format>", "how the result is printed")
    .choices(["text", "json"])
    .default("text");
}

function proxyOption(): Option {
  return new Option("--proxy <url>", "the admin socket of this domain's proxy: unix:///path");
}

function environment(): string {
  return `\nEnvironment:\n${helpOf(proxyClientTable, process.stdout.columns)}`;
}
