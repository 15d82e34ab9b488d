/** What the demo's firewalls let pass, and the look whether they do. */
import { PROBE_PORT } from "../../probe/main.ts";
import type { Stage } from "../stage.ts";

const ALLOWED = 8080;
const DENIED = 80;

/** For NSM_ACL_CONFIG_PATH. */
export const FIREWALL_RULES = `default: deny
rules:
  - { name: ping, action: allow, protocol: icmp }
  - { name: web, action: allow, protocol: tcp, ports: ${ALLOWED} }
  - { name: probes of the demo, action: allow, protocol: udp, ports: ${PROBE_PORT} }
`;

/** Whether a client reaches what it may at an address of a gateway, and nothing else. Says so. */
export async function checkFirewall(
  stage: Stage,
  client: string,
  gateway: string,
  address: string,
): Promise<boolean> {
  await using listener = await stage.listener(`pod-${gateway}`, address, [ALLOWED, DENIED]);
  void listener;
  const [passes, leaks] = await Promise.all([
    stage.canConnect(`pod-${client}`, address, ALLOWED),
    stage.canConnect(`pod-${client}`, address, DENIED),
  ]);
  stage.story.step(
    `port ${ALLOWED} ${passes ? "passes" : "DOES NOT PASS"}, port ${DENIED} ${leaks ? "PASSES" : "does not"}`,
  );
  return passes && !leaks;
}
