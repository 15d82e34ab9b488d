import { expect, test } from "vitest";
import { describeText, duration } from "./describe-text.ts";
import type { DescribedWire } from "./describe-wire.ts";

const NOW = Date.UTC(2030, 0, 1);
const wire: DescribedWire = {
  id: "m1",
  client: "client",
  service: "lan",
  endpoint: "nse",
  state: "UP",
  mechanism: "VXLAN",
  interface: "nsm-1",
  addresses: ["10.0.0.1/32"],
  peerAddresses: ["10.0.0.0/32"],
  mtu: 1446,
  payload: "ETHERNET",
  path: ["client", "nsmgr"],
  expires: new Date(NOW + 61_000).toISOString(),
  hops: [
    { name: "client", id: "client-0", expires: null, clientInterface: null, endpointInterface: null },
    {
      name: "forwarder",
      id: "f1",
      expires: new Date(NOW - 5000).toISOString(),
      clientInterface: "KERNEL/nsm-1",
      endpointInterface: "VXLAN/",
    },
  ],
  labels: { app: "x" },
  mechanismParameters: { name: "nsm-1" },
  routes: [{ of: "client", prefix: "10.1.0.0/16", via: "" }],
  policies: [],
  dns: [{ servers: ["10.0.0.53"], domains: [] }],
  counters: [
    {
      forwarder: "forwarder",
      side: "client",
      interface: "nsm-1",
      received: { bytes: 84, packets: 1, dropped: 1, errors: 0 },
      sent: { bytes: 168, packets: 2, dropped: 0, errors: 2 },
    },
  ],
  events: [
    { time: new Date(NOW - 90_000).toISOString(), manager: "nsmgr", what: "failed", why: "", count: 3 },
  ],
  faults: [],
};

test("a wire is told part by part, and what there is nothing of is left out", () => {
  expect(describeText(wire, NOW)).toBe(`Wire         m1
Client       client (its connection client-0)
Service      lan
Endpoint     nse
State        UP
Mechanism    VXLAN
Payload      ETHERNET
MTU          1446
Lease        1m1s left
Interface    nsm-1
Addresses    10.0.0.1/32
Peer         10.0.0.0/32
Labels       app=x
Parameters   name=nsm-1

Path
  NAME       TOKEN        CLIENT SIDE   ENDPOINT SIDE  ID
  client     no end       -             -              client-0
  forwarder  over for 5s  KERNEL/nsm-1  VXLAN/         f1

Routes
  OF      PREFIX       VIA
  client  10.1.0.0/16  the other end

DNS
  SERVERS    DOMAINS
  10.0.0.53  all

Counters, as the pod sees them
  SIDE    INTERFACE  RECEIVED         SENT              LOST                 FORWARDER
  client  nsm-1      84 B, 1 packets  168 B, 2 packets  1 dropped, 2 errors  forwarder

Last events
  AGO    TIME                      MANAGER  WHAT       WHY
  1m30s  2029-12-31T23:58:30.000Z  nsmgr    failed ×3  -
`);
});

test("of a wire that is closed its events are told", () => {
  expect(describeText({ id: "m1", events: wire.events }, NOW)).toMatch(
    /^Wire +m1\nState +closed\n\nLast events\n.*failed ×3/s,
  );
});

test.for([
  [0, "0s"],
  [-5, "0s"],
  [4499, "4s"],
  [60_000, "1m"],
  [130_000, "2m10s"],
  [3 * 3_600_000 + 300_000, "3h5m"],
  [52 * 3_600_000, "2d4h"],
] as const)("%d ms are %s", ([ms, text]) => {
  expect(duration(ms)).toBe(text);
});
