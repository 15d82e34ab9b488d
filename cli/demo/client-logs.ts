/** What the clients of a run say of their wires, in their logs. */
import { followLines } from "./follow.ts";
import { logFile } from "./start.ts";
import { parseEstablished, parseWireNews } from "./wires.ts";
import type { Established, WireNews } from "./wires.ts";

export interface ClientLogs extends Disposable {
  /** From now on; the client has been started. */
  follow(client: string): void;
  /** The first line, said already or to come, that fits. Throws the signal's reason. */
  established(
    client: string,
    test: (wire: Established) => boolean,
    signal: AbortSignal,
  ): Promise<Established>;
}

/** `onNews`: whatever a client that is followed says of its wires. */
export function createClientLogs(
  folder: string,
  onNews: (client: string, news: WireNews) => void,
): ClientLogs {
  const followers = new DisposableStack();
  const heard = new Map<string, { readonly wires: Established[]; changed: PromiseWithResolvers<void> }>();
  const follow = (client: string) => {
    const known = heard.get(client);
    if (known !== undefined) return known;
    const fresh = { wires: new Array<Established>(), changed: Promise.withResolvers<void>() };
    heard.set(client, fresh);
    followers.use(
      followLines(logFile(folder, client), (line) => {
        const news = parseWireNews(line);
        if (news !== undefined) onNews(client, news);
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
    follow: (client) => void follow(client),
    async established(client, test, signal) {
      const news = follow(client);
      const aborted = Promise.withResolvers<void>();
      const onAbort = () => aborted.resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for (;;) {
          signal.throwIfAborted();
          const found = news.wires.find(test);
          if (found !== undefined) return found;
          await Promise.race([news.changed.promise, aborted.promise]);
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    [Symbol.dispose]: () => followers.dispose(),
  };
}
