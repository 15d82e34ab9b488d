/** Under which address others reach a server of this host. */
import { networkInterfaces } from "node:os";
import { publicUrl } from "./address.ts";

/** The first TCP address, with an address of the node in place of none; without TCP the first socket. */
export function publishedUrl(listenOn: readonly string[]): string {
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const addresses = own.flatMap(({ internal, cidr }) => (internal || cidr === null ? [] : [cidr]));
  const tcp = listenOn.find((url) => !url.startsWith("unix:"));
  return publicUrl(tcp ?? listenOn[0] ?? "", addresses);
}
