/** A socket that sends ICMP echo requests to one address and reads the replies: of the own network namespace (sdk/icmp.ts). */
import { randomBytes } from "node:crypto";
import { NsmError } from "./errors.ts";
import { decodeEchoReply, encodeEchoRequest, openEcho, packetsOf } from "./icmp.ts";
import { closeFd, sendSync, setSocketOption, watchReadable } from "./native.ts";
import { ipBytes } from "./netlink/ip.ts";

const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;

export interface EchoSocketOptions {
  readonly source: string;
  readonly target: string;
  /** Leaves by this interface, whatever the routes say: two wires may lead to one address. */
  readonly device: string;
}

export interface EchoSocket extends Disposable {
  /** A request that the kernel refuses (no route, no device) is lost like any other. */
  send(sequence: number): void;
  /** Sequence numbers of the replies that wait to be read. */
  replies(): number[];
}

/**
 * A raw socket, or where CAP_NET_RAW is missing a ping socket (icmp(7), `net.ipv4.ping_group_range`). Throws NsmError:
 * PERMISSION_DENIED when neither is allowed, else what the kernel says of the addresses.
 */
export function openEchoSocket(
  { source, target, device }: EchoSocketOptions,
  onReadable: () => void,
): EchoSocket {
  const family = ipBytes(target).length === 4 ? 4 : 6;
  const { fd, isRaw } = openEither(family, source, target);
  const id = randomBytes(2).readUInt16BE();
  try {
    bindToDevice(fd, device);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const watch = watchReadable(fd, onReadable);
  let open = true;
  return {
    send(sequence) {
      try {
        sendSync(fd, encodeEchoRequest(family, id, sequence));
      } catch (error) {
        if (!(error instanceof NsmError)) throw error;
      }
    },
    replies() {
      const sequences: number[] = [];
      for (const packet of packetsOf(fd)) {
        // A ping socket is given its own replies alone, with its own identifier and without the IP header.
        const sequence = isRaw
          ? decodeEchoReply(family, packet, id)
          : decodeEchoReply(family, packet, "any", "without-header");
        if (sequence !== undefined) sequences.push(sequence);
      }
      return sequences;
    },
    [Symbol.dispose]() {
      if (!open) return;
      open = false;
      watch[Symbol.dispose]();
      closeFd(fd);
    },
  };
}

function openEither(family: 4 | 6, source: string, target: string): { fd: number; isRaw: boolean } {
  try {
    return { fd: openEcho(family, source, target), isRaw: true };
  } catch (error) {
    if (!(error instanceof NsmError) || error.code !== "PERMISSION_DENIED") throw error;
    return { fd: openEcho(family, source, target, "ping"), isRaw: false };
  }
}

function bindToDevice(fd: number, device: string): void {
  setSocketOption(fd, SOL_SOCKET, SO_BINDTODEVICE, Buffer.from(`${device}\0`));
}
