/** Mechanism WIREGUARD: an encrypted tunnel for payload IP (docs/protocol.md, "Mechanisms"). */
import { KEYED_TUNNEL } from "./tunnel.ts";

export const WIREGUARD_TYPE = "WIREGUARD";

export const WIREGUARD = KEYED_TUNNEL;
