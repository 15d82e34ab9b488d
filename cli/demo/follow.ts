/** Follows a file that another process appends lines to. */
import { closeSync, openSync, readSync, watch } from "node:fs";

/** Calls `onLine` for every complete line that is there or gets there, until disposed. */
export function followLines(path: string, onLine: (line: string) => void): Disposable {
  const fd = openSync(path, "r");
  const buffer = Buffer.alloc(65_536);
  const decoder = new TextDecoder();
  let partial = "";
  const read = () => {
    for (let length = readSync(fd, buffer); length > 0; length = readSync(fd, buffer)) {
      const lines = (partial + decoder.decode(buffer.subarray(0, length), { stream: true })).split("\n");
      partial = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    }
  };
  const watcher = watch(path, read);
  read();
  return {
    [Symbol.dispose]() {
      watcher.close();
      closeSync(fd);
    },
  };
}
