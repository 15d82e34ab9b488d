/** The commands that look at a mesh, as the command line knows them. */
import { Command, Option } from "commander";
import { helpOf } from "../sdk/config.ts";
import { clientTable } from "./client.ts";

/** `asked`: the first word of the command line; what it does not ask for is not loaded. */
export async function addLookingCommands(
  program: Command,
  asked: string | undefined,
  finish: (code: number) => void,
): Promise<void> {
  const get = program
    .command("get")
    .summary("list wires, services, endpoints or clients, once or as they change")
    .description(
      "Lists what a manager knows. Needs a SPIFFE identity; operators see the wires of everybody, others their own.",
    );
  const describe = program
    .command("describe")
    .summary("tell all about one wire: path, addresses, counters, last events")
    .description(
      "Tells all that is known of one thing. Needs a SPIFFE identity; operators may ask about every wire, others about their own.",
    );
  addExplain(program, finish);
  if (asked === "get") await addKinds(get, finish);
  if (asked === "describe") addWire(describe, finish);
}

async function addKinds(get: Command, finish: (code: number) => void): Promise<void> {
  const { kinds } = await import("./get-kinds.ts");
  const { formats } = await import("./get-print.ts");
  interface Options {
    readonly output: (typeof formats)[number];
    readonly watch?: true;
    readonly allNodes?: true;
    readonly allDomains?: true;
    readonly manager?: string;
  }
  for (const kind of kinds) {
    const command = get
      .command(kind.name)
      .alias(kind.one)
      .summary(kind.summary)
      .description(`Lists ${kind.summary}.`)
      .argument("[names...]", "only these; * stands for anything, the id of a wire may be cut")
      .addOption(
        new Option("-o, --output <format>", "how they are printed").choices(formats).default("table"),
      )
      .option("-w, --watch", "go on and print changes until Ctrl-C")
      .addOption(managerOption())
      .addHelpText("after", environment);
    if (kind.isPerNode)
      command.option("-A, --all-nodes", "ask the managers of all nodes that have a forwarder");
    if (kind.isOfDomains === true)
      command.option(
        "--all-domains",
        "what other domains let this one use, too; one that does not answer is said so",
      );
    command.action(async (names: string[], options: Options) => {
      const { output, manager } = options;
      const watch = options.watch === true;
      const allNodes = options.allNodes === true;
      const allDomains = options.allDomains === true;
      const { runGet } = await import("./get.ts");
      finish(await runGet(kind, { names, output, watch, allNodes, allDomains, manager }));
    });
  }
}

function addWire(describe: Command, finish: (code: number) => void): void {
  interface Options {
    readonly output: "text" | "json" | "yaml";
    readonly allNodes?: true;
    readonly manager?: string;
  }
  describe
    .command("wire")
    .summary("path hop by hop, tokens' ends, addresses, routes, counters, last events")
    .description("Tells all that the managers of its path know of one wire.")
    .argument(
      "<id>",
      "as nsm get wires shows it; also the connection's id at any hop, or the first 4 or more characters",
    )
    .addOption(
      new Option("-o, --output <format>", "how it is printed")
        .choices(["text", "json", "yaml"])
        .default("text"),
    )
    .option("-A, --all-nodes", "look for it at the managers of all nodes that have a forwarder")
    .addOption(managerOption())
    .addHelpText("after", environment)
    .action(async (id: string, { output, allNodes, manager }: Options) => {
      const { runDescribeWire } = await import("./describe-wire.ts");
      finish(await runDescribeWire(id, { output, allNodes: allNodes === true, manager }));
    });
}

function addExplain(program: Command, finish: (code: number) => void): void {
  interface Options {
    readonly output: "table" | "json" | "yaml";
    readonly label?: readonly string[];
    readonly manager?: string;
  }
  program
    .command("explain")
    .summary("say why each endpoint of a service is taken for a client, or not")
    .description(
      "Lists every endpoint of a network service, and the forwarders of the node, with the reason why they are taken for a client or not. " +
        "Asks a manager for what the registry has, and judges by the rules that forwarders choose by. " +
        "Needs a SPIFFE identity; operators see the wires of everybody, others their own.",
    )
    .argument("<client>", "its name, the id of its connection, or of the wire as nsm get wires shows it")
    .argument("<service>", "the network service")
    .option(
      "-l, --label <key=value>",
      "label of the client, where it has no wire that you may see, or to see what another would change; may be repeated",
      (label: string, before: readonly string[] | undefined) => [...(before ?? []), label],
    )
    .addOption(
      new Option("-o, --output <format>", "how it is printed")
        .choices(["table", "json", "yaml"])
        .default("table"),
    )
    .addOption(managerOption())
    .addHelpText("after", environment)
    .action(async (client: string, service: string, { output, label = [], manager }: Options) => {
      const { runExplain } = await import("./explain.ts");
      finish(await runExplain(client, service, { output, labels: label, manager }));
    });
}

function managerOption(): Option {
  return new Option("--manager <url>", "the manager to ask: unix:///path or tcp://host:port");
}

function environment(): string {
  return `\nEnvironment:\n${helpOf(clientTable, process.stdout.columns)}`;
}
