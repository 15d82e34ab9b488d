/** Exit codes of `nsm`, the same for every subcommand. */
export const ExitCode = {
  ok: 0,
  /** It did not work. */
  failed: 1,
  /** Wrong arguments or environment; nothing was started. */
  badUsage: 2,
  /** It worked except for what this machine cannot do. */
  unavailable: 3,
  /** What was asked for by name is not there. */
  notFound: 4,
  /** Ended by SIGINT, as shells report it. */
  interrupted: 130,
} as const;
