/** What the clients of a run say of their wires, in their logs. */
import { followLines } from "./follow.ts";
import { logFile } from "./start.ts";
import { parseEstablished } from "./wires.ts";
import type { Established } from "./wires.ts";

export interface ClientLogs extends Disposable {
  established(client: string, test: (wire: Established) => boolean): Promise<Established>;
}

/** Reads the logs of clients from when they are first asked for. */
export function createClientLogs(folder: string, signal: AbortSignal): ClientLogs {
  const followers = new DisposableStack();
  const heard = new Map<string, { readonly wires: Established[]; changed: PromiseWithResolvers<void> }>();
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined); // also when nobody waits any more
  signal.addEventListener("abort", () => aborted.reject(signal.reason), { once: true });
  if (signal.aborted) aborted.reject(signal.reason);
  const listen = (client: string) => {
    const known = heard.get(client);
    if (known !== undefined) return known;
    const fresh = { wires: new Array<Established>(), changed: Promise.withResolvers<void>() };
    heard.set(client, fresh);
    followers.use(
      followLines(logFile(folder, client), (line) => {
        const wire = parseEstablished(line);
        if (wire === undefined) return;
        fresh.wires.push(wire);
        fresh.changed.resolve();
        fresh.changed = Promise.withResolvers();
      }),
    );
    return fresh;
  };
  return {
    async established(client, test) {
      const news = listen(client);
      for (;;) {
        const found = news.wires.find(test);
        if (found !== undefined) return found;
        await Promise.race([news.changed.promise, aborted.promise]);
      }
    },
    [Symbol.dispose]: () => followers.dispose(),
  };
}
