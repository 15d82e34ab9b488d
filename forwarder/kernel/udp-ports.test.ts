import { expect, test } from "vitest";
import { parseUdp } from "./udp-ports.ts";

test("local ports of /proc/net/udp and udp6", () => {
  const udp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  123: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17 2 0000000000000000 0
 4711: 0100007F:CA6C 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 18 2 0000000000000000 0
  124: 00000000000000000000000000000000:CA6D 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 19 2 0 0
`;
  expect(parseUdp(udp)).toEqual([4789, 51820, 51821]);
  expect(parseUdp("")).toEqual([]);
});
