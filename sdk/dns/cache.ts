/** Answers that are still good, the least recently used ones forgotten first (RFC 2308). Pure: the time is passed in. */
import { LruMap } from "../lru.ts";
import { aged } from "./message.ts";
import type { Answer } from "./message.ts";

const MOST_ANSWERS = 2048;

interface Entry {
  readonly bytes: Buffer;
  readonly storedMs: number;
  readonly ttlSeconds: number;
}

export interface AnswerCache {
  /** With the TTLs that are left; undefined when there is none. */
  get(key: string, nowMs: number): Buffer | undefined;
  /** Keeps what has a TTL. */
  set(key: string, answer: Answer, nowMs: number): void;
  clear(): void;
}

/** `nowMs`: monotonic. */
export function createAnswerCache(): AnswerCache {
  let entries = new LruMap<string, Entry>(MOST_ANSWERS);
  return {
    get(key, nowMs) {
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      const seconds = Math.floor((nowMs - entry.storedMs) / 1000);
      if (seconds < entry.ttlSeconds) return aged(entry.bytes, seconds);
      entries.delete(key);
      return undefined;
    },
    set(key, { bytes, ttlSeconds }, nowMs) {
      if (ttlSeconds > 0) entries.set(key, { bytes, storedMs: nowMs, ttlSeconds });
    },
    clear() {
      entries = new LruMap(MOST_ANSWERS);
    },
  };
}
