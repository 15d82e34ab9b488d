/** How long what another domain said of an endpoint counts, by the clock here: its own may differ. The longest lease of a registry. */
export const FOREIGN_LEASE_MS = 60_000;
