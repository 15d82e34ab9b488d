/** A netlink socket of one network namespace: requests out, every answer checked (netlink(7)). */
import { closeFd, insideNetns, netnsCookie, openSocket, receive, send, setSocketOption } from "../native.ts";
import { NLMSG, NLM_F, decodeError, decodeMessages, encodeMessage, KernelError } from "./message.ts";
import type { Message, Request } from "./message.ts";

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const PROTOCOLS = { route: 0, netfilter: 12, generic: 16 } as const;
const SOL_NETLINK = 270;
const NETLINK = { CAP_ACK: 10, EXT_ACK: 11, GET_STRICT_CHK: 12 } as const;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;

/** Acknowledgements of one send wait in the socket's receive buffer together. */
const BATCH = 64;
const RECEIVE_BUFFER_BYTES = 1 << 20;
const DATAGRAM_BYTES = 64 * 1024;
const DUMP_TRIES = 10;

/**
 * For all sockets: filled and read within one turn of the event loop. A buffer for each datagram, outside of the heap, would
 * be garbage that makes V8 collect everything every few messages.
 */
const received = Buffer.allocUnsafeSlow(DATAGRAM_BYTES);

/** One caller at a time: requests of one socket are not interleaved. */
export interface NetlinkSocket extends Disposable {
  /** All in order, each whatever became of those before it; one result each. */
  batch(requests: readonly Request[]): Promise<(KernelError | undefined)[]>;
  /** The same, throwing the first refusal. */
  execute(...requests: readonly Request[]): Promise<void>;
  /** All or nothing, between the two marks of a transaction; throws the first refusal. */
  transaction(begin: Request, requests: readonly Request[], end: Request): Promise<void>;
  /** The answer to a question about one object. Throws KernelError (ENODEV, ...). */
  get(request: Request): Promise<Message>;
  /** A consistent list: redone when the kernel says that it changed meanwhile. */
  dump(request: Request): Promise<Message[]>;
  /** Of the namespace that it is bound to, as `netnsCookie`. */
  netnsCookie(): bigint | undefined;
}

/**
 * Opens a socket in the namespace `netnsFd`, or in the process's own. It keeps the namespace alive: dispose it soon.
 *
 * The kernel works inside send(), under a lock that all of the machine shares, so sends run on threads of libuv's pool and
 * never hold the event loop.
 */
export function openNetlink(protocol: keyof typeof PROTOCOLS, netnsFd?: number): NetlinkSocket {
  const open = () => openSocket(AF_NETLINK, SOCK_RAW, PROTOCOLS[protocol]);
  const fd = netnsFd === undefined ? open() : insideNetns(netnsFd, open);
  return netlinkOn(fd);
}

/** Takes a netlink socket over. */
export function netlinkOn(fd: number): NetlinkSocket {
  for (const option of [NETLINK.CAP_ACK, NETLINK.EXT_ACK, NETLINK.GET_STRICT_CHK])
    setSocketOption(fd, SOL_NETLINK, option, 1);
  setSocketOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES);
  let sequence = 0;
  let isOpen = true;

  /** Sends at most BATCH requests and collects the messages of each until all are answered. */
  async function exchange(
    requests: readonly Request[],
    marks?: readonly [Request, Request],
  ): Promise<Answer[]> {
    const first = sequence + 1;
    sequence += requests.length;
    const answers: Answer[] = requests.map(() => ({ messages: [], done: false, error: undefined }));
    const flags = (request: Request) => request.flags | NLM_F.REQUEST | NLM_F.ACK;
    const datagram = requests.map((r, i) => encodeMessage(r.type, flags(r), first + i, r.body));
    if (marks) {
      // Not acknowledged; a refusal of the transaction itself comes under the number of its mark.
      const [begin, end] = marks.map((mark) => encodeMessage(mark.type, NLM_F.REQUEST, first, mark.body));
      datagram.unshift(begin ?? Buffer.alloc(0));
      datagram.push(end ?? Buffer.alloc(0));
    }
    await send(fd, Buffer.concat(datagram));
    // Waits for nothing: the kernel answered within send(), and goes on with a dump within recv().
    while (answers.some((answer) => !answer.done)) {
      const length = receive(fd, received);
      if (length === undefined && answers.some((answer) => answer.error)) break;
      if (length === undefined) throw new Error(`netlink: no answer to ${requests[0]?.doing}`);
      // A copy: the caller reads it later.
      for (const message of decodeMessages(Buffer.from(received.subarray(0, length)))) {
        const index = message.seq - first;
        const answer = answers[index];
        if (answer !== undefined) take(answer, message, requests[index]?.doing ?? "");
      }
    }
    return answers;
  }

  async function one(request: Request): Promise<Answer> {
    const [answer] = await exchange([request]);
    if (answer === undefined) throw new Error("netlink: no answer");
    if (answer.error) throw answer.error;
    return answer;
  }

  const self: NetlinkSocket = {
    async batch(requests) {
      const results: (KernelError | undefined)[] = [];
      for (let i = 0; i < requests.length; i += BATCH)
        for (const { error } of await exchange(requests.slice(i, i + BATCH))) results.push(error);
      return results;
    },
    async execute(...requests) {
      const refusal = (await self.batch(requests)).find((error) => error !== undefined);
      if (refusal) throw refusal;
    },
    async transaction(begin, requests, end) {
      const answers = await exchange(requests, [begin, end]);
      const refused = answers.find(({ error }) => error !== undefined);
      if (refused?.error) throw refused.error;
    },
    async get(request) {
      const { messages } = await one(request);
      const [message] = messages;
      if (message === undefined) throw new KernelError(request.doing, 61);
      return message;
    },
    async dump(request) {
      for (let tries = 1; ; tries++) {
        const { messages } = await one(request);
        if (tries === DUMP_TRIES || !messages.some(({ flags }) => flags & NLM_F.DUMP_INTR)) return messages;
      }
    },
    netnsCookie: () => netnsCookie(fd),
    [Symbol.dispose]() {
      if (isOpen) closeFd(fd);
      isOpen = false;
    },
  };
  return self;
}

interface Answer {
  readonly messages: Message[];
  done: boolean;
  error: KernelError | undefined;
}

function take(answer: Answer, message: Message, doing: string): void {
  switch (message.type) {
    case NLMSG.NOOP:
      break;
    case NLMSG.ERROR:
    case NLMSG.DONE:
      answer.done = true;
      answer.error = decodeError(message, doing);
      break;
    case NLMSG.OVERRUN:
      answer.done = true;
      answer.error = new KernelError(doing, 105, "the receive buffer of the socket overran");
      break;
    default:
      answer.messages.push(message);
  }
}
