/** How a daemon is described, started and stopped. */
import type { ConfigOf, Table } from "./config.ts";
import type { Logger } from "./log.ts";

/** What a daemon gets from the process that runs it. */
export interface Runtime {
  /** Aborted on SIGTERM, SIGINT, SIGHUP and SIGQUIT: stop, leave wires as they are unless the daemon's contract says otherwise. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** Ends the daemon by its own wish, as SIGTERM would: with exit code 0. */
  readonly stop: (why: string) => void;
}

/** One role of the mesh as a subcommand of `nsm`. */
export interface Daemon<T extends Table = Table> {
  /** Subcommand name. */
  readonly name: string;
  /** One sentence for `nsm --help`. */
  readonly summary: string;
  /** A paragraph for `nsm <name> --help`. */
  readonly about: string;
  readonly table: T;
  /** What no variable says by itself. Throws NsmError for a configuration that cannot be started with. */
  check?(config: ConfigOf<T>): void;
  /** Resolves when the daemon serves; disposing stops it and leaves nothing behind that it should not. */
  start(config: ConfigOf<T>, runtime: Runtime): Promise<AsyncDisposable>;
}

/** A daemon as its folder describes it. */
interface Description<T extends Table> extends Omit<Daemon<T>, "start"> {
  /** Resolves when the daemon serves. What it opens goes on the stack, which is taken down at the end, and when this fails. */
  readonly open: (config: ConfigOf<T>, runtime: Runtime, stack: AsyncDisposableStack) => Promise<void>;
}

export function defineDaemon<T extends Table>({ open, ...daemon }: Description<T>): Daemon<T> {
  return {
    ...daemon,
    async start(config, runtime) {
      await using stack = new AsyncDisposableStack();
      await open(config, runtime, stack);
      return stack.move();
    },
  };
}
