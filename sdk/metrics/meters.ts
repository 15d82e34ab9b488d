/**
 * Every metric of every daemon: one table, of which docs/metrics.md is made (`npm run generate`).
 *
 * Base units; labels have few values, and none that a client chooses. `role` is added to each by the exposition.
 */
import { counter, gauge, histogram } from "./meter.ts";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export const meters = {
  buildInfo: gauge("nsm_build_info", "1; which version runs", ["version", "node"]),

  requests: counter("nsm_requests_total", "Requests and Closes that were answered here, by gRPC code", [
    "operation",
    "code",
  ]),
  sentRequests: counter(
    "nsm_sent_requests_total",
    "Requests and Closes that a client sent to its manager, by gRPC code",
    ["operation", "code"],
  ),
  setup: histogram(
    "nsm_wire_setup_seconds",
    "how long Requests took that made a wire, or failed to; of a client: from the first try until the wire is up",
    ["code"],
    SECONDS,
  ),
  refresh: histogram("nsm_wire_refresh_seconds", "how long refreshes of wires took", ["code"], SECONDS),
  refreshLag: histogram(
    "nsm_wire_refresh_lag_seconds",
    "how much later than planned a client began a refresh",
    [],
    SECONDS,
  ),
  heals: counter(
    "nsm_wire_heals_total",
    "wires that a client, or an endpoint that passes on, made anew, by what it had heard",
    ["reason"],
  ),
  healGap: histogram(
    "nsm_wire_heal_seconds",
    "from the news that a wire is broken until its client has a new one",
    ["reason"],
    SECONDS,
  ),
  wires: gauge(
    "nsm_wires",
    "wires, by state (UP, DOWN, REFRESH_REQUESTED, RESELECT_REQUESTED, NONE: asked for) and what joins them (KERNEL, VXLAN, WIREGUARD, OTHER)",
    ["state", "mechanism"],
  ),
  wireBytes: counter(
    "nsm_wire_bytes_total",
    "bytes on the device of a wire, as its pod sees them, since the device was made; of at most 1000 wires of a forwarder",
    ["wire", "side", "direction"],
  ),
  wirePackets: counter("nsm_wire_packets_total", "packets, as nsm_wire_bytes_total", [
    "wire",
    "side",
    "direction",
  ]),
  wireDropped: counter(
    "nsm_wire_dropped_packets_total",
    "packets that the device dropped or could not send, as nsm_wire_bytes_total",
    ["wire", "side", "direction"],
  ),

  firewallPackets: counter(
    "nsm_firewall_packets_total",
    "packets that a rule of the firewall decided on; rule is its name in the operator's file, or default",
    ["rule"],
  ),
  firewallBytes: counter("nsm_firewall_bytes_total", "bytes, as nsm_firewall_packets_total", ["rule"]),

  waiting: gauge(
    "nsm_waiting_operations",
    "Requests and Closes that wait for another one of the same connection",
  ),
  queuedEvents: gauge(
    "nsm_queued_events",
    "events that readers of monitor streams and registry watches have not taken yet",
  ),
  longestQueue: gauge(
    "nsm_longest_event_queue",
    "events that wait for the slowest of these readers; beyond 1000 of a monitor, 10000 of a watch it is cut off",
  ),
  slowReaders: counter("nsm_slow_readers_total", "streams that were ended because their reader fell behind"),

  sessions: gauge("nsm_sessions", "TLS sessions, by which side opened them (client: we did)", ["side"]),
  handshakes: counter(
    "nsm_handshakes_total",
    "TLS handshakes, by side and result (ok, failed: also refused)",
    ["side", "result"],
  ),
  tokensMinted: counter("nsm_tokens_minted_total", "path tokens that were signed; most are used many times"),
  tokensVerified: counter(
    "nsm_tokens_verified_total",
    "path tokens whose signature was looked at, by result (ok, bad)",
    ["result"],
  ),
  certificateExpiry: gauge(
    "nsm_certificate_expiry_timestamp_seconds",
    "end of the own certificate, seconds since 1970; renewed at about half of its life",
  ),

  registryEntries: gauge("nsm_registry_entries", "records of the registry, by kind (service, endpoint)", [
    "kind",
  ]),
  registryWatches: gauge("nsm_registry_watches", "watches that are open here, by kind (service, endpoint)", [
    "kind",
  ]),
  registryCalls: counter(
    "nsm_registry_calls_total",
    "calls that were answered, by method (register, unregister) and gRPC code",
    ["method", "code"],
  ),
  registryFinds: counter(
    "nsm_registry_finds_total",
    "lists and watches that were begun, by kind (service, endpoint)",
    ["kind"],
  ),

  eventLoopLag: gauge(
    "nsm_event_loop_lag_seconds",
    "how late the event loop was since the last scrape, by quantile (0.5, 0.99, 1)",
    ["quantile"],
  ),
  cpu: counter("process_cpu_seconds_total", "user and system CPU time of the process"),
  memory: gauge("process_resident_memory_bytes", "resident memory of the process"),
  heap: gauge("nsm_heap_used_bytes", "JavaScript heap that is in use"),
  descriptors: gauge("process_open_fds", "open file descriptors"),
  started: gauge("process_start_time_seconds", "start of the process, seconds since 1970"),
} as const;
