/**
 * Parameters of mechanisms: text by name on the wire, typed here (docs/protocol.md, "Mechanisms").
 *
 * A value that cannot be read counts as absent, as in every implementation of the protocol; what must be there is checked
 * where it is used. Writing does not check.
 */
import { formatAddress, parseIp } from "../prefix.ts";

/** As in a `Mechanism` message. */
export type Parameters = Record<string, string>;

export interface Parameter<T> {
  /** Exact spelling on the wire. */
  readonly key: string;
  readonly read: (value: string | undefined) => T;
  readonly write: (value: T) => string;
}

/** The value, or what stands for its absence. */
export function getParameter<T>(parameters: Readonly<Parameters>, { key, read }: Parameter<T>): T {
  return read(Object.hasOwn(parameters, key) ? parameters[key] : undefined);
}

/** Writes the value; undefined removes it. */
export function setParameter<T>(
  parameters: Parameters,
  { key, write }: Parameter<T>,
  value: T | undefined,
): void {
  if (value === undefined) delete parameters[key];
  else parameters[key] = write(value);
}

/** Absent: "". */
export function text(key: string): Parameter<string> {
  return { key, read: (value = "") => value, write: (value) => value };
}

/** `1 t T true True TRUE` is true, anything else false. */
export function flag(key: string): Parameter<boolean> {
  return {
    key,
    read: (value = "") => ["1", "t", "T", "true", "True", "TRUE"].includes(value),
    write: (value) => String(value),
  };
}

/** Decimal digits up to `max`. Absent: 0. */
export function whole(key: string, max: number): Parameter<number> {
  return {
    key,
    read: (value = "") => (/^[0-9]+$/.test(value) && Number(value) <= max ? Number(value) : 0),
    write: (value) => String(value),
  };
}

/** An IP address in its shortest form. Absent: undefined. */
export function ipAddress(key: string): Parameter<string | undefined> {
  return {
    key,
    read: (value = "") => {
      const address = parseIp(value);
      return address === undefined ? undefined : formatAddress(address);
    },
    write: (value = "") => value,
  };
}

/** Texts joined with semicolons. Absent: undefined. */
export function texts(key: string): Parameter<readonly string[] | undefined> {
  return { key, read: (value) => value?.split(";"), write: (value) => (value ?? []).join(";") };
}

export const UINT16_MAX = 0xffff;
export const UINT32_MAX = 0xffff_ffff;
