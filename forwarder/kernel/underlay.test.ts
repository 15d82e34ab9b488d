import { expect, test } from "vitest";
import { NsmError } from "../../sdk/errors.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { rememberMtu } from "./underlay.ts";

test("the way to a node is looked up again after half a minute, and after a failure at once", async () => {
  const clock = createFakeClock();
  const asked: string[] = [];
  let mtu: number | undefined = 1500;
  const underlayMtu = rememberMtu((remoteIp) => {
    asked.push(remoteIp);
    if (mtu === undefined) return Promise.reject(new NsmError("UNAVAILABLE", "no-route", "no way"));
    return Promise.resolve(mtu);
  }, clock);
  expect([await underlayMtu("192.0.2.1"), await underlayMtu("192.0.2.1")]).toEqual([1500, 1500]);
  expect(await underlayMtu("192.0.2.2")).toBe(1500);
  expect(asked).toEqual(["192.0.2.1", "192.0.2.2"]);

  mtu = undefined;
  await clock.advance(29_999);
  expect(await underlayMtu("192.0.2.1")).toBe(1500);
  await clock.advance(1);
  await expect(underlayMtu("192.0.2.1")).rejects.toMatchObject({ reason: "no-route" });
  mtu = 1300;
  expect(await underlayMtu("192.0.2.1")).toBe(1300);
  expect(asked).toEqual(["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"]);
});
