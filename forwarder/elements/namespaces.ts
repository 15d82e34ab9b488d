/** Whose network namespace a mechanism means (docs/protocol.md, "Namespaces"). */
import { statSync } from "node:fs";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import { PEER_PID } from "../../sdk/mechanisms/kernel.ts";
import type { NetnsRef } from "../dataplane.ts";
import { findProcess, ownNetnsInode } from "../kernel/netns.ts";

type Parameters = { readonly [key: string]: string };

/**
 * The namespace that a client asks for. With the manager's `peerPID` it is that process's, and must be the one that the
 * client's `inodeURL` names if it names one. A manager that writes no `peerPID` at all (Go's) has checked the inode itself: the
 * namespace is looked up among the processes.
 * Throws PERMISSION_DENIED `netns-unproven`, `netns-mismatch`, `netns-of-node`; NOT_FOUND `netns-gone`; INVALID_ARGUMENT
 * `bad-inode-url`.
 */
export function netnsOfCaller(parameters: Parameters, fromManager: boolean): NetnsRef {
  const inode = fromManager && parameters[PEER_PID] === undefined && namedInode(parameters["inodeURL"] ?? "");
  if (inode) return netnsOfInode(inode);
  const pid = Number(parameters[PEER_PID] ?? "");
  if (!fromManager || !Number.isSafeInteger(pid) || pid <= 0)
    throw new NsmError(
      "PERMISSION_DENIED",
      "netns-unproven",
      "the network namespace of the client is not proven: ask through the manager of this node, on its unix socket",
    );
  return netnsOfProcess(pid, parameters["inodeURL"]);
}

function netnsOfInode(inode: bigint): NetnsRef {
  if (inode === ownNetnsInode())
    throw new NsmError(
      "PERMISSION_DENIED",
      "netns-of-node",
      `network namespace ${inode} is the node's own: wires end in pods only`,
    );
  const ref = findProcess(inode);
  if (ref !== undefined) return ref;
  throw new NsmError(
    "NOT_FOUND",
    "netns-gone",
    `no process of this node lives in network namespace ${inode}`,
  );
}

/** The namespace of a process that the kernel told us of; `inodeUrl` is what its owner says it is. */
export function netnsOfProcess(pid: number, inodeUrl: string | undefined): NetnsRef {
  const inode = inodeOf(pid);
  const named = namedInode(inodeUrl ?? "");
  if (named !== undefined && named !== inode)
    throw new NsmError(
      "PERMISSION_DENIED",
      "netns-mismatch",
      `${inodeUrl ?? ""} is not the network namespace of process ${pid} (${inode}): a wire ends only in the caller's own`,
    );
  return { pid, inode };
}

function inodeOf(pid: number): bigint {
  try {
    return statSync(`/proc/${pid}/ns/net`, { bigint: true }).ino;
  } catch (error) {
    if (errnoOf(error) === "EACCES")
      throw new NsmError(
        "PERMISSION_DENIED",
        "netns-unreadable",
        `no right to read the namespaces of process ${pid}`,
        error,
      );
    throw new NsmError("NOT_FOUND", "netns-gone", `process ${pid} and its network namespace are gone`, error);
  }
}

/** The inode of `inode://<dev>/<ino>`; undefined when nothing, or a path of the writer's own view, is named. */
function namedInode(url: string): bigint | undefined {
  if (url === "" || url.startsWith("file:")) return undefined;
  const digits = /^inode:\/\/\d{1,20}\/(\d{1,20})$/.exec(url)?.[1];
  if (digits === undefined)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-inode-url",
      `inodeURL ${JSON.stringify(url)}: expected inode://<device>/<inode>`,
    );
  return BigInt(digits);
}
