/** Netlink messages as bytes (linux/netlink.h, struct nlmsghdr and nlmsgerr). */
import { errnoName, errnoText } from "../errno.ts";
import { decodeAttributes } from "./attribute.ts";

/** NLM_F_*: of any request, of GET, of NEW. */
export const NLM_F = {
  REQUEST: 0x1,
  ACK: 0x4,
  DUMP_INTR: 0x10,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
} as const;

/** Types of control messages. */
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

const CAPPED = 0x100;
const ACK_TLVS = 0x200;
const NLMSGERR_ATTR = { MSG: 1, OFFS: 2 } as const;
const HEADER = 16;

/** What a caller asks of the kernel; the socket adds REQUEST, ACK and the sequence number. */
export interface Request {
  /** What it does and to what, for error texts: `new veth nsm-1`. */
  readonly doing: string;
  readonly type: number;
  readonly flags: number;
  /** Family header and attributes. */
  readonly body: Uint8Array;
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly body: Buffer;
}

/** A refusal by the kernel. `code` is the errno's name, `offset` where in the request the fault is. */
export class KernelError extends Error {
  override readonly name = "KernelError";
  readonly code: string;
  readonly errno: number;
  /** The kernel's own words (extended acknowledgement); empty when it said nothing. */
  readonly said: string;
  readonly offset: number | undefined;

  constructor(doing: string, errno: number, said = "", offset?: number) {
    super(`${doing}: ${errnoName(errno)} (${said === "" ? errnoText(errno) : said})`);
    this.code = errnoName(errno);
    this.errno = errno;
    this.said = said;
    this.offset = offset;
  }
}

export function isKernelError(error: unknown, ...codes: readonly string[]): error is KernelError {
  return error instanceof KernelError && (codes.length === 0 || codes.includes(error.code));
}

/** Always a multiple of 4 bytes, so that messages may follow one another in one datagram. */
export function encodeMessage(type: number, flags: number, seq: number, body: Uint8Array): Buffer {
  const length = HEADER + body.length;
  const buffer = Buffer.alloc((length + 3) & ~3);
  buffer.writeUInt32LE(length, 0);
  buffer.writeUInt16LE(type, 4);
  buffer.writeUInt16LE(flags, 6);
  buffer.writeUInt32LE(seq, 8);
  buffer.set(body, HEADER);
  return buffer;
}

/** The messages of one datagram; `body` shares its memory. A truncated last message ends the list. */
export function decodeMessages(datagram: Buffer): Message[] {
  const messages: Message[] = [];
  for (let offset = 0; offset + HEADER <= datagram.length;) {
    const length = datagram.readUInt32LE(offset);
    if (length < HEADER || offset + length > datagram.length) break;
    messages.push({
      type: datagram.readUInt16LE(offset + 4),
      flags: datagram.readUInt16LE(offset + 6),
      seq: datagram.readUInt32LE(offset + 8),
      body: datagram.subarray(offset + HEADER, offset + length),
    });
    offset += (length + 3) & ~3;
  }
  return messages;
}

/** Of an ERROR or DONE message: undefined for success (an acknowledgement), else the refusal. */
export function decodeError(message: Message, doing: string): KernelError | undefined {
  const errno = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0;
  if (errno === 0) return undefined;
  const tlvs =
    message.flags & ACK_TLVS ? decodeAttributes(message.body.subarray(tlvOffset(message))) : undefined;
  return new KernelError(doing, errno, tlvs?.text(NLMSGERR_ATTR.MSG), tlvs?.u32(NLMSGERR_ATTR.OFFS));
}

/** Attributes follow the error number (DONE), or it and the request's header (ERROR), with its body unless capped. */
function tlvOffset({ type, flags, body }: Message): number {
  if (type === NLMSG.DONE) return 4;
  const request = flags & CAPPED || body.length < 8 ? HEADER : body.readUInt32LE(4);
  return 4 + ((request + 3) & ~3);
}
