/** Who can reach which TCP port: a listener greets whoever comes, and the other side says whether it was greeted. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** A firewall drops without a word; an answer over a few wires takes milliseconds. */
const GREETED_WITHIN_MS = 1000;

/** At an own address. */
export async function openListeners(address: string, ports: readonly number[]): Promise<Disposable> {
  using stack = new DisposableStack();
  for (const port of ports) {
    const server = createServer((socket) => socket.on("error", () => socket.destroy()).end("hello"));
    stack.defer(() => server.close());
    server.listen(port, address);
    await once(server, "listening");
  }
  return stack.move();
}

export async function isGreeted(address: string, port: number): Promise<boolean> {
  const socket = connect({ host: address, port });
  try {
    await once(socket, "data", { signal: AbortSignal.timeout(GREETED_WITHIN_MS) });
    return true;
  } catch {
    return false; // refused, dropped or silent: which of them is the firewall's affair
  } finally {
    socket.destroy();
  }
}
