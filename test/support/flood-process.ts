/** Child process: sends datagrams from the namespace that it was started in, as fast as it can, until there is no way any more. */
import { connectSocket, openSocket, sendSync } from "../../sdk/native.ts";
import { socketAddress } from "./udp.ts";

const [target = "", port = ""] = process.argv.slice(2);
const fd = openSocket(2, 2, 0);
connectSocket(fd, socketAddress(target, Number(port)));
const datagram = Buffer.alloc(100);
let sent = 0;
try {
  for (;;) {
    sendSync(fd, datagram);
    if (++sent === 1000) process.send?.("flooding");
  }
} catch {
  process.disconnect();
}
