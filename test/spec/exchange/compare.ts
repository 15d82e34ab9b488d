/** Our messages against the recorded ones: equal but for made-up values, own signatures and the moment of the own clock. */
import type { X509Certificate } from "node:crypto";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { claimedExpiryMs, isSignedBy, parseToken } from "../../../sdk/jwt.ts";
import type { Names } from "./names.ts";

/** How far the recorded process was behind the moment that our clock stands at while it answers. */
const SLACK_MS = 1500;

/** The component under test. */
export interface Subject {
  readonly name: string;
  readonly spiffeId: string;
  /** Of our test key: every token of the component must verify under it. */
  readonly certificate: X509Certificate;
  readonly names: Names;
  /** Tokens are used again for a tenth of this. */
  readonly lifetimeMs: number;
}

/** What differs, one line each with the place; empty when ours is the recorded one. */
export function differencesOf(
  ours: JsonValue | undefined,
  recorded: JsonValue | undefined,
  subject: Subject,
  place = "",
): string[] {
  if (ours === undefined || recorded === undefined)
    return ours === recorded ? [] : [difference(place, ours, recorded)];
  if (Array.isArray(ours) && Array.isArray(recorded)) return ofLists(ours, recorded, subject, place);
  if (isObject(ours) && isObject(recorded)) return ofObjects(ours, recorded, subject, place);
  if (typeof ours === "string" && typeof recorded === "string")
    return fitsText(lastName(place), ours, recorded, subject) ? [] : [difference(place, ours, recorded)];
  return ours === recorded ? [] : [difference(place, ours, recorded)];
}

function ofLists(
  ours: readonly JsonValue[],
  recorded: readonly JsonValue[],
  subject: Subject,
  place: string,
) {
  const length = Math.max(ours.length, recorded.length);
  return Array.from({ length }, (_, i) => i).flatMap((i) =>
    differencesOf(ours[i], recorded[i], subject, `${place}[${i}]`),
  );
}

function ofObjects(ours: JsonObject, recorded: JsonObject, subject: Subject, place: string): string[] {
  if (place.endsWith(".connections")) return ofConnections(ours, recorded, subject, place);
  const keys = new Set([...Object.keys(ours), ...Object.keys(recorded)]);
  // The expiry beside an own token is the own clock's, too; events show it without the token.
  const isOwn = isText(ours["token"]) ? isOwnToken(ours["token"], subject) : ours["name"] === subject.name;
  return [...keys].flatMap((key) => {
    const [left, right] = [ours[key], recorded[key]];
    if (key === "expires" && isOwn && isText(left) && isText(right) && isNear(left, right, subject))
      return [];
    return differencesOf(left, right, subject, `${place}.${key}`);
  });
}

/** Events list connections by id: the one id of ours stands for the one recorded. */
function ofConnections(ours: JsonObject, recorded: JsonObject, subject: Subject, place: string): string[] {
  const left = Object.entries(ours);
  const right = Object.entries(recorded);
  if (left.length !== right.length) return [difference(place, Object.keys(ours), Object.keys(recorded))];
  return left.flatMap(([id, connection]) => {
    const match = right.find(([recordedId]) => subject.names.fits(id, recordedId));
    return match === undefined
      ? [difference(`${place}.${id}`, id, Object.keys(recorded))]
      : differencesOf(connection, match[1], subject, `${place}.${id}`);
  });
}

function fitsText(name: string, ours: string, recorded: string, subject: Subject): boolean {
  if (ours === recorded) return true;
  if (name === "token") return fitsToken(ours, recorded, subject);
  if (name === "expirationTime" || name === "initialRegistrationTime") return isSameTime(ours, recorded);
  return subject.names.fits(ours, recorded);
}

/** A token of the component says the same, for as long, and is signed with our test key. Foreign tokens are passed on as they are. */
export function fitsToken(ours: string, recorded: string, subject: Subject): boolean {
  if (!isOwnToken(ours, subject)) return ours === recorded;
  const [left, right] = [parseToken(ours)?.claims, parseToken(recorded)?.claims];
  const [leftExpiry, rightExpiry] = [claimedExpiryMs(ours), claimedExpiryMs(recorded)];
  if (left === undefined || right === undefined || leftExpiry === undefined || rightExpiry === undefined)
    return false;
  return (
    JSON.stringify([left.get("sub"), left.get("aud")]) ===
      JSON.stringify([right.get("sub"), right.get("aud")]) && isNearMs(leftExpiry, rightExpiry, subject)
  );
}

/** True for a token that this run's component signed. */
export function isOwnToken(token: string, { certificate }: Subject): boolean {
  return isSignedBy(token, certificate);
}

/** Two expiries of tokens: ours may be in use for a while already. */
export function isNear(ours: string, recorded: string, subject: Subject): boolean {
  return isNearMs(Date.parse(ours), Date.parse(recorded), subject);
}

function isSameTime(ours: string, recorded: string): boolean {
  return Math.abs(Date.parse(ours) - Date.parse(recorded)) <= SLACK_MS;
}

function isNearMs(ours: number, recorded: number, { lifetimeMs }: Subject): boolean {
  return ours <= recorded + SLACK_MS && ours >= recorded - SLACK_MS - lifetimeMs / 10;
}

function difference(place: string, ours: JsonValue | undefined, recorded: JsonValue | undefined): string {
  return `${place || "message"}: ours ${short(ours)}, recorded ${short(recorded)}`;
}

/** Text for a report; long values are cut, tokens by what they say. */
function short(value: JsonValue | undefined): string {
  const text = JSON.stringify(value) ?? "nothing";
  const claims = typeof value === "string" ? parseToken(value)?.claims : undefined;
  if (claims !== undefined) return `T(${JSON.stringify([...claims])})`;
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

function lastName(place: string): string {
  return /\.([^.[]+)(?:\[\d+\])*$/.exec(place)?.[1] ?? "";
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: JsonValue | undefined): value is string {
  return typeof value === "string";
}
