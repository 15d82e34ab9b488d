/** Connections to machines that vanish without a word: seen dead after half a minute instead of a quarter of an hour. */
import type { Socket } from "node:net";
import { setSocketOption } from "../native.ts";
import { descriptorOf } from "./process.ts";

/** A quiet connection is probed after this (tcp(7), TCP_KEEPIDLE); libuv probes ten times, each second. */
const QUIET_MS = 15_000;
/** How long sent data may stay unacknowledged; the kernel does not probe meanwhile. */
const UNACKNOWLEDGED_MS = 25_000;
const IPPROTO_TCP = 6;
const TCP_USER_TIMEOUT = 18;

/**
 * Not HTTP/2 pings: servers of the Go implementation end sessions whose clients ping (grpc/doc/keepalive.md,
 * "too_many_pings").
 */
export function expectAnswers(socket: Socket): void {
  socket.setKeepAlive(true, QUIET_MS);
  setSocketOption(descriptorOf(socket), IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS);
}
