import { expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { Side } from "../dataplane.ts";
import { followNamespaces } from "./follow-namespaces.ts";

const PATH = ["client", "manager", "w"];
const manager = callBy(await makePeer("/nsmgr/node1", 1));

function build() {
  const end = createRecorder<CallContext & WithEvents>();
  const said: string[] = [];
  let ended: (wireId: string, side: Side) => void = () => undefined;
  const service = followNamespaces(
    { onNamespaceEnded: (listener) => void (ended = listener) },
    { fromNextHop: (id, { state }) => void said.push(`${id} ${State[state]}`) },
  )(end);
  const events = {
    close: () => {
      said.push("closed");
      return Promise.resolve();
    },
  };
  const request = (established = false) =>
    service.request(requestOn(PATH), eventsOf(manager, { events, established }));
  return { end, service, said, request, ended: (side: Side) => ended("w", side) };
}

test("with its client's namespace the connection ends, with its endpoint's it is down", async () => {
  const { said, request, ended } = build();
  await request();
  ended("endpoint");
  expect(said).toEqual(["w DOWN"]);
  ended("client");
  expect(said).toEqual(["w DOWN", "closed"]);
});

test("what ended while a Request found another endpoint is of no account", async () => {
  const { end, said, request, ended } = build();
  await request();
  end.answer = ({ connection }) => {
    ended("endpoint");
    return Promise.resolve(connection);
  };
  await request(true);
  expect(said).toEqual([]);
});

test("what ended while a Request failed is told after it", async () => {
  const { end, said, request, ended } = build();
  await request();
  end.answer = () => {
    ended("endpoint");
    return Promise.reject(new Error("nobody else is there"));
  };
  await expect(request(true)).rejects.toThrow("nobody else");
  expect(said).toEqual(["w DOWN"]);
});

test("nothing is told of connections that are closed or never were", async () => {
  const { end, service, said, request, ended } = build();
  ended("client");
  await request();
  await service.close(connectionOn(PATH), eventsOf(manager));
  end.answer = () => Promise.reject(new Error("refused"));
  await expect(request()).rejects.toThrow("refused");
  ended("client");
  ended("endpoint");
  expect(said).toEqual([]);
});
