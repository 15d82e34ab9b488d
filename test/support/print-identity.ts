/** A workload that prints its SPIFFE id, or `code: message` of the refusal, as JSON. Arguments: socket, how long to wait. */
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { openX509Source } from "../../sdk/spiffe/workload-api.ts";

const [socket = "", waitMs = "2000"] = process.argv.slice(2);
try {
  await using source = await openX509Source({
    socket: `unix://${socket}`,
    log: silentLogger,
    signal: new AbortController().signal,
    waitMs: Number(waitMs),
  });
  console.log(JSON.stringify({ id: source.current().svid.id }));
} catch (error) {
  if (!(error instanceof NsmError)) throw error;
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
