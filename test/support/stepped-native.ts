/** Stands in for sdk/native.ts below the netlink socket of a stepped node: each send waits until the test lets it go. */
import { send as sendNow } from "../../sdk/native.ts";

export { closeFd, insideNetns, netnsCookie, openSocket, receive, setSocketOption } from "../../sdk/native.ts";

let sends = 0;
let stopAt = 0;
let onStop: () => Promise<void> = () => Promise.resolve();

/** Before the `count`th send from now on, `body` is waited for; once. */
export function stopBefore(count: number, body: () => Promise<void>): void {
  sends = 0;
  stopAt = count;
  onStop = body;
}

/** Sends since the last `stopBefore`. */
export function sendsSoFar(): number {
  return sends;
}

export async function send(fd: number, bytes: Uint8Array): Promise<void> {
  if (++sends === stopAt) await onStop();
  await sendNow(fd, bytes);
}
