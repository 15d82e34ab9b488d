/** Messages of nf_tables (linux/netfilter/nf_tables.h) for tables of family inet; their numbers are in network order. */
import { bytes, encodeAttributes, nest, text } from "./attribute.ts";
import type { Attribute } from "./attribute.ts";
import { NLM_F } from "./message.ts";
import type { Request } from "./message.ts";

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG = {
  NEWTABLE: 0,
  DELTABLE: 2,
  NEWCHAIN: 3,
  NEWRULE: 6,
  NEWSET: 9,
  NEWSETELEM: 12,
  DELSETELEM: 14,
} as const;
const NFPROTO_INET = 1;
const NFT_LIST_ELEM = 1;
const NLM_F_APPEND = 0x800;

/** Bases of header offsets. */
const PAYLOAD = { network: 1, transport: 2 } as const;

/** Around a transaction: all messages between these two happen, or none. */
export const BATCH_BEGIN: Request = batchMark("begin", 16);
export const BATCH_END: Request = batchMark("end", 17);

/** Fine when it exists. `comment` is for people who look at it. */
export function addTable(table: string, comment?: string): Request {
  const attributes = [text(1, table)];
  // As the program nft writes it: type 0, length, text.
  if (comment !== undefined)
    attributes.push(
      be32(2, 0),
      bytes(6, Buffer.from(`\0${String.fromCharCode(comment.length + 1)}${comment}\0`)),
    );
  return request("add table", NFT_MSG.NEWTABLE, NLM_F.CREATE, attributes);
}

/** With all that is in it. */
export function deleteTable(table: string): Request {
  return request("delete table", NFT_MSG.DELTABLE, 0, [text(1, table)]);
}

const NF_ACCEPT = 1;

/** A chain of the hook: NF_INET_LOCAL_IN 1. */
export function addBaseChain(table: string, chain: string, hook: number, priority: number): Request {
  return request("add chain", NFT_MSG.NEWCHAIN, NLM_F.CREATE, [
    text(1, table),
    text(3, chain),
    text(7, "filter"),
    be32(5, NF_ACCEPT),
    nest(4, [be32(1, hook), be32(2, priority)]),
  ]);
}

export function addChain(table: string, chain: string): Request {
  return request("add chain", NFT_MSG.NEWCHAIN, NLM_F.CREATE, [text(1, table), text(3, chain)]);
}

/**
 * Part of a set's key as the program nft describes it, so that `nft list` can show the set: a datatype, and an expression in
 * its encoding of type, length, value. The kernel keeps both and looks at neither.
 */
export interface KeyPart {
  readonly datatype: number;
  readonly expression: Uint8Array;
}

export interface NftSet {
  readonly name: string;
  /** Number within its transaction. */
  readonly id: number;
  readonly keyBytes: number;
  readonly parts: readonly KeyPart[];
}

/** A field of a protocol header, by the numbers of nft's include/proto.h. */
function headerField(datatype: number, protocol: number, field: number): KeyPart {
  const payload = tlv(1, tlv(0, word(protocol)), tlv(1, word(field)));
  return { datatype, expression: Buffer.concat([tlv(0, word(EXPR.PAYLOAD)), payload]) };
}

const EXPR = { PAYLOAD: 7, CONCAT: 13 } as const;
export const IP_SADDR = headerField(7, 12, 11);
export const IP6_SADDR = headerField(8, 13, 8);
export const UDP_DPORT = headerField(13, 6, 2);

/** `@th,96,24`: bits of a header that nft has no name for. */
export function rawBits(base: keyof typeof PAYLOAD, offset: number, length: number): KeyPart {
  const numbers = [0, 0, PAYLOAD[base] + 1, offset, length].map((number, i) => tlv(i, word(number)));
  return { datatype: 4, expression: Buffer.concat([tlv(0, word(EXPR.PAYLOAD)), tlv(1, ...numbers)]) };
}

export function addSet(table: string, { name, id, keyBytes, parts }: NftSet): Request {
  const keyType = parts.reduce((type, { datatype }) => (type << 6) | datatype, 0);
  const key = tlv(1, ...parts.map(({ expression }, i) => tlv(i, expression)));
  const userData = Buffer.concat([tlv(0, word(0)), tlv(3, tlv(0, word(EXPR.CONCAT)), key)]);
  return request("add set", NFT_MSG.NEWSET, NLM_F.CREATE, [
    text(1, table),
    text(2, name),
    be32(3, 0),
    be32(4, keyType),
    be32(5, keyBytes),
    be32(10, id),
    bytes(13, userData),
  ]);
}

/** Type and length of a byte each. */
function tlv(type: number, ...values: readonly Uint8Array[]): Buffer {
  const value = Buffer.concat(values);
  return Buffer.concat([Uint8Array.of(type, value.length), value]);
}

function word(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

export function addElement(table: string, set: string, key: Uint8Array): Request {
  return request("add element", NFT_MSG.NEWSETELEM, NLM_F.CREATE, element(table, set, key));
}

/** ENOENT when it is not there. */
export function deleteElement(table: string, set: string, key: Uint8Array): Request {
  return request("delete element", NFT_MSG.DELSETELEM, 0, element(table, set, key));
}

/** At the end of the chain. */
export function addRule(table: string, chain: string, expressions: readonly Attribute[]): Request {
  return request("add rule", NFT_MSG.NEWRULE, NLM_F.CREATE | NLM_F_APPEND, [
    text(1, table),
    text(2, chain),
    nest(4, expressions),
  ]);
}

/** Registers of 4 bytes. */
const NFT_REG32_00 = 8;
const META = { NFPROTO: 15, L4PROTO: 16 } as const;

/** Goes on when a byte of the packet's metadata has this value. */
export function metaIs(key: keyof typeof META, value: number): Attribute[] {
  return [
    expression("meta", [be32(2, META[key]), be32(1, NFT_REG32_00)]),
    expression("cmp", [be32(1, NFT_REG32_00), be32(2, 0), nest(3, [bytes(1, Uint8Array.of(value))])]),
  ];
}

/** Loads part of a header into a register, counted in words of 4 bytes. */
export function loadPayload(
  register: number,
  base: keyof typeof PAYLOAD,
  offset: number,
  length: number,
): Attribute {
  return expression("payload", [
    be32(1, NFT_REG32_00 + register),
    be32(2, PAYLOAD[base]),
    be32(3, offset),
    be32(4, length),
  ]);
}

/** Goes on when the key that begins at the first register is in the set. */
export function isInSet({ name, id }: NftSet): Attribute {
  return expression("lookup", [be32(2, NFT_REG32_00), text(1, name), be32(4, id)]);
}

export const counter: Attribute = expression("counter", []);

const VERDICT = { drop: 0, jump: -3, return: -5 } as const;

export function verdict(code: keyof typeof VERDICT, chain?: string): Attribute {
  const target = chain === undefined ? [] : [text(2, chain)];
  return expression("immediate", [be32(1, 0), nest(2, [nest(2, [be32(1, VERDICT[code]), ...target])])]);
}

function expression(name: string, data: readonly Attribute[]): Attribute {
  return nest(NFT_LIST_ELEM, [text(1, name), nest(2, data)]);
}

function element(table: string, set: string, key: Uint8Array): Attribute[] {
  const item = nest(NFT_LIST_ELEM, [nest(1, [bytes(1, key)])]);
  return [text(1, table), text(2, set), nest(3, [item])];
}

function request(doing: string, message: number, flags: number, attributes: readonly Attribute[]): Request {
  const body = Buffer.concat([nfgenmsg(NFPROTO_INET, 0), encodeAttributes(attributes)]);
  return { doing: `${doing} of nftables`, type: (NFNL_SUBSYS_NFTABLES << 8) | message, flags, body };
}

function batchMark(doing: string, type: number): Request {
  return { doing, type, flags: 0, body: nfgenmsg(0, NFNL_SUBSYS_NFTABLES) };
}

/** struct nfgenmsg: u8 family, u8 version, be16 resource. */
function nfgenmsg(family: number, resource: number): Uint8Array {
  return Uint8Array.of(family, 0, resource >> 8, resource & 0xff);
}

function be32(type: number, value: number): Attribute {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return { type, value: buffer };
}
