/** What this kernel and this machine can do for wires, found by trying it in a namespace that ends with the trial. */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";

/** Each is undefined when it is there, else the reason that it is not. */
export interface Kernel {
  readonly namespaces: string | undefined;
  readonly veth: string | undefined;
  readonly vxlan: string | undefined;
  readonly wireguard: string | undefined;
  /** /dev/net/tun, which user-space WireGuard needs. */
  readonly tun: string | undefined;
  /** Rules of nftables, as the source filter of VXLAN needs them. */
  readonly nftables: string | undefined;
}

/** Needs root and `ip`. About 20 ms. */
export function probeKernel(): Kernel {
  const trials = {
    veth: "ip link add name nsm0 type veth peer name nsm1",
    vxlan: "ip link add name nsm2 type vxlan id 1 dstport 4789 remote 192.0.2.1",
    wireguard: "ip link add name nsm3 type wireguard",
    nftables: "nft add table netdev nsm-trial",
  };
  const script = Object.entries(trials).map(
    ([name, command]) => `echo ${name} $(${command} 2>&1 && echo yes)`,
  );
  const run = spawnSync("unshare", ["--net", "sh", "-c", script.join("\n")], { encoding: "utf8" });
  const namespaces =
    run.status === 0 ? undefined : firstLine(run.stderr || String(run.error ?? "unshare failed"));
  const answers = new Map(run.stdout?.split("\n").map((line) => splitOnce(line)));
  const answer = (name: keyof typeof trials) => {
    if (namespaces !== undefined) return namespaces;
    const said = answers.get(name) ?? "";
    return said.endsWith("yes") ? undefined : said;
  };
  return {
    namespaces,
    veth: answer("veth"),
    vxlan: answer("vxlan"),
    wireguard: answer("wireguard"),
    nftables: answer("nftables"),
    tun: tunFault(),
  };
}

function tunFault(): string | undefined {
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return "there is no /dev/net/tun that this process may use";
  }
}

function firstLine(text: string): string {
  return text.trim().split("\n")[0] ?? "";
}

function splitOnce(line: string): [string, string] {
  const space = line.indexOf(" ");
  return space < 0 ? [line, ""] : [line.slice(0, space), line.slice(space + 1)];
}
