import { generateKeyPairSync } from "node:crypto";
import { expect, test } from "vitest";
import { connectionOn } from "../test/support/chain.ts";
import { claimOf } from "./claim.ts";
import { signToken } from "./jwt.ts";

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const token = (sub: string) => signToken({ sub: `spiffe://example.org/${sub}`, exp: 4e9 }, privateKey);

/** A connection at the third hop; `subjects` are those of the tokens before. */
function at(ids: readonly string[], subjects: readonly string[]) {
  const connection = connectionOn(["client", "manager", "me"], ids);
  for (const [i, segment] of (connection.path?.pathSegments ?? []).entries())
    segment.token = subjects[i] === undefined ? "" : token(subjects[i]);
  return connection;
}

const mine = claimOf(at(["1", "2", "3"], ["nsc", "nsmgr"]), "spiffe://example.org/nsmgr");

test("the same hops have the same claim, also when the caller's token is an older one or names it alone", () => {
  expect(claimOf(at(["1", "2", "3"], ["nsc"]), "spiffe://example.org/nsmgr")).toBe(mine);
  expect(claimOf(at(["1", "2", "3"], ["nsc", "nsmgr"]))).toBe(mine);
  expect(claimOf(at(["1", "2", "other"], ["nsc", "nsmgr"]))).toBe(mine);
});

test.each([
  ["another id of the first hop", claimOf(at(["x", "2", "3"], ["nsc", "nsmgr"]))],
  ["another id of the caller", claimOf(at(["1", "x", "3"], ["nsc", "nsmgr"]))],
  ["another identity of the first hop", claimOf(at(["1", "2", "3"], ["mallory", "nsmgr"]))],
  ["another caller", claimOf(at(["1", "2", "3"], ["nsc", "nsmgr"]), "spiffe://example.org/mallory")],
  ["ids that only join to the same text", claimOf(at(["12", "", "3"], ["nsc", "nsmgr"]))],
])("%s is another claim", (_, claim) => {
  expect(claim).not.toBe(mine);
});
