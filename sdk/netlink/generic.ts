/** Generic netlink (linux/genetlink.h): a command header before the attributes, families found by name. */
import { decodeAttributes, encodeAttributes, text } from "./attribute.ts";
import type { Attribute } from "./attribute.ts";
import type { Message, Request } from "./message.ts";

const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR = { FAMILY_ID: 1, FAMILY_NAME: 2 } as const;
/** struct genlmsghdr: u8 command, u8 version, u16 reserved. */
export const GENL_HEADER = 4;

export function genericRequest(
  doing: string,
  family: number,
  command: number,
  flags: number,
  attributes: readonly Attribute[],
): Request {
  const header = Uint8Array.of(command, 1, 0, 0);
  return { doing, type: family, flags, body: Buffer.concat([header, encodeAttributes(attributes)]) };
}

/** ENOENT when the kernel has no such family. */
export function getFamily(name: string): Request {
  const attributes = [text(CTRL_ATTR.FAMILY_NAME, name)];
  return genericRequest(`find ${name}`, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, attributes);
}

/** The message type by which a family is addressed, the same in all namespaces. */
export function decodeFamily({ body }: Message): number {
  const id = decodeAttributes(body.subarray(GENL_HEADER)).u16(CTRL_ATTR.FAMILY_ID);
  if (id === undefined) throw new Error("generic netlink: a family without a number");
  return id;
}
