/** Archives in the format `newc` of cpio(5), which the kernel unpacks as its first file system (initramfs). */

export type Entry =
  | { readonly kind: "folder"; readonly path: string }
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly content: Uint8Array }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

const FOLDER = 0o040755;
const FILE = 0o100000;
const LINK = 0o120777;

/** The archive in pieces, to be written one after another. Paths are relative, folders before what they hold. */
export function* encodeCpio(entries: Iterable<Entry>): Generator<Uint8Array> {
  let inode = 0;
  for (const entry of entries) {
    inode++;
    switch (entry.kind) {
      case "folder":
        yield* encodeEntry(inode, entry.path, FOLDER, new Uint8Array());
        break;
      case "file":
        yield* encodeEntry(inode, entry.path, FILE | entry.mode, entry.content);
        break;
      case "link":
        yield* encodeEntry(inode, entry.path, LINK, Buffer.from(entry.target));
    }
  }
  yield* encodeEntry(0, "TRAILER!!!", 0, new Uint8Array());
}

/** Thirteen numbers in hex after the magic; name and content are padded to four bytes. */
function* encodeEntry(inode: number, path: string, mode: number, content: Uint8Array): Generator<Uint8Array> {
  const name = Buffer.from(`${path}\0`);
  const [uid, gid, links, mtime, device, checksum] = [0, 0, 1, 0, 0, 0];
  const fields = [inode, mode, uid, gid, links, mtime, content.length, device, device, device, device];
  const header = [...fields, name.length, checksum]
    .map((field) => field.toString(16).padStart(8, "0"))
    .join("");
  const head = Buffer.concat([Buffer.from(`070701${header}`), name]);
  yield Buffer.concat([head, padding(head.length)]);
  yield content;
  yield padding(content.length);
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}
