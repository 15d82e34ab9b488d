/**
 * Instants as text, to the nanosecond: RFC 3339 as the Go programs write and read it (docs/protocol.md, "Tokens").
 *
 * Read beyond the RFC: a comma before the fraction, more than nine digits (cut), an hour of one digit. Refused: lower-case
 * `t` and `z`, hour 24, second 60, 30 February, a year of five digits, a missing zone.
 */

/** An instant; the shape of google.protobuf.Timestamp. */
export interface Instant {
  /** Seconds since 1970, rounded down. */
  readonly seconds: bigint;
  /** 0 to 999,999,999 after `seconds`. */
  readonly nanos: number;
}

const FORM =
  /^(?<year>\d{4})-(?<month>\d{2})-(?<day>\d{2})T(?<hour>\d{1,2}):(?<minute>\d{2}):(?<second>\d{2})(?:[.,](?<fraction>\d+))?(?<zone>Z|[+-]\d{2}:\d{2})$/;

/** Undefined when the text is no instant. Years 0 to 9999. */
export function parseInstant(text: string): Instant | undefined {
  const parts = FORM.exec(text)?.groups;
  if (parts === undefined) return undefined;
  const field = (name: string) => Number(parts[name]);
  if (field("hour") > 23 || field("minute") > 59 || field("second") > 59) return undefined;
  const offsetMinutes = parseZone(parts["zone"] ?? "Z");
  if (offsetMinutes === undefined) return undefined;

  const date = new Date(0);
  date.setUTCFullYear(field("year"), field("month") - 1, field("day"));
  if (date.getUTCMonth() !== field("month") - 1 || date.getUTCDate() !== field("day")) return undefined;
  date.setUTCHours(field("hour"), field("minute") - offsetMinutes, field("second"));
  const nanos = Number((parts["fraction"] ?? "").slice(0, 9).padEnd(9, "0"));
  return { seconds: BigInt(date.getTime() / 1000), nanos };
}

/** In UTC, the fraction without trailing zeros: `2031-01-02T03:04:05.5Z`. Years 0 to 9999. */
export function formatInstant(instant: Instant): string {
  const whole = new Date(Number(instant.seconds) * 1000).toISOString().slice(0, -".000Z".length);
  const fraction = String(instant.nanos).padStart(9, "0").replace(/0+$/, "");
  return fraction === "" ? `${whole}Z` : `${whole}.${fraction}Z`;
}

/** Milliseconds since 1970, rounded down. */
export function instantMs(instant: Instant): number {
  return Number(instant.seconds) * 1000 + Math.floor(instant.nanos / 1e6);
}

export function instantOfMs(ms: number): Instant {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.floor(ms - seconds * 1000) * 1e6 };
}

/** Minutes east of UTC; offsets up to 24:60 are read, as Go does. */
function parseZone(zone: string): number | undefined {
  if (zone === "Z") return 0;
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(4, 6));
  if (hours > 24 || minutes > 60) return undefined;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}
