/** rtnetlink messages of namespace ids (linux/net_namespace.h): the numbers by which one network namespace knows others. */
import { decodeAttributes, encodeAttributes, u32 } from "./attribute.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";

const RTM = { NEWNSID: 88, DELNSID: 89, GETNSID: 90 } as const;
const NETNSA = { NSID: 1, FD: 3 } as const;
/** NETNSA_NSID_NOT_ASSIGNED: in an answer that there is none, in a request that the kernel chooses. */
const UNASSIGNED = 0xffff_ffff;

/** Multicast group of a namespace that tells when it forgets an id, because the other namespace has ended. */
export const RTNLGRP_NSID = 28;

/** The id of another namespace; EEXIST when it has one. */
export function newNamespaceId(netnsFd: number): Request {
  return request("new namespace id", RTM.NEWNSID, netnsFd, UNASSIGNED);
}

export function getNamespaceId(netnsFd: number): Request {
  return request("get namespace id", RTM.GETNSID, netnsFd);
}

export function dumpNamespaceIds(): Request {
  return { doing: "dump namespace ids", type: RTM.GETNSID, flags: NLM_F.DUMP, body: Buffer.alloc(4) };
}

/** Undefined when it has none. */
export function decodeNamespaceId({ body }: Message): number | undefined {
  const id = decodeAttributes(body.subarray(4)).s32(NETNSA.NSID);
  return id === undefined || id < 0 ? undefined : id;
}

/** The id of a namespace that has ended; undefined for other messages. */
export function decodeEndedNamespace(message: Message): number | undefined {
  return message.type === RTM.DELNSID ? decodeNamespaceId(message) : undefined;
}

/** struct rtgenmsg and attributes */
function request(doing: string, type: number, netnsFd: number, id?: number): Request {
  const attributes = [u32(NETNSA.FD, netnsFd), ...(id === undefined ? [] : [u32(NETNSA.NSID, id)])];
  return { doing, type, flags: 0, body: Buffer.concat([Buffer.alloc(4), encodeAttributes(attributes)]) };
}
