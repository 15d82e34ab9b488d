/** The authority's own bundle endpoint (SPIFFE standard "Federation", profile https_spiffe): anybody may ask, its SVID proves who answers. */
import { createPrivateKey } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:https";
import type { Clock } from "../sdk/clock.ts";
import { asNsmError } from "../sdk/errors.ts";
import { formatAddress, parseAddress } from "../sdk/grpc/address.ts";
import type { Logger } from "../sdk/log.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import { answerBundle } from "../sdk/spiffe/bundle-endpoint.ts";
import { readCertificates } from "../sdk/spiffe/certificate.ts";
import type { Svids } from "./svids.ts";
import type { Trust } from "./trust.ts";

/** Who asks has little to say, and is strange to us. */
const REQUEST_MS = 5000;
const MAX_CONNECTIONS = 256;
const RETRY_MS = 10_000;

export interface BundleServerOptions {
  /** `tcp://host:port` */
  readonly listenOn: string;
  /** SPIFFE id that the endpoint shows. */
  readonly id: string;
  readonly svids: Svids;
  readonly trust: Trust;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Serves when it resolves. Throws INVALID_ARGUMENT `cannot-listen`. */
export async function openBundleServer(options: BundleServerOptions): Promise<AsyncDisposable> {
  const { listenOn, id, svids, trust, log, clock } = options;
  const server = createServer(
    {
      minVersion: "TLSv1.2",
      requestTimeout: REQUEST_MS,
      headersTimeout: REQUEST_MS,
      handshakeTimeout: REQUEST_MS,
    },
    (request, response) => answerBundle(request, response, formatBundle(trust.current().own)),
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.on("tlsClientError", (err) => log.debug({ err }, "handshake failed"));
  server.on("clientError", (err, socket) => {
    log.debug({ err }, "request failed");
    socket.destroy();
  });
  let timer: Disposable | undefined;
  let isClosed = false;
  const renew = async () => {
    const { certificate, privateKey, renewAtMs } = await svids.of(id);
    if (isClosed) return;
    const key = createPrivateKey({ key: Buffer.from(privateKey), format: "der", type: "pkcs8" });
    server.setSecureContext({
      cert: readCertificates(certificate).join(""),
      key: key.export({ type: "pkcs8", format: "pem" }),
      minVersion: "TLSv1.2",
    });
    again(renewAtMs - clock.now());
  };
  const again = (afterMs: number) => {
    timer?.[Symbol.dispose]();
    timer = clock.timer(Math.max(afterMs, 10), renewSoon);
  };
  const renewSoon = () => {
    renew().catch((err: unknown) => {
      log.error({ err }, "bundle endpoint has no new certificate");
      if (!isClosed) again(RETRY_MS);
    });
  };
  await renew();
  const watching = trust.onChange(renewSoon);
  const close = () => {
    isClosed = true;
    watching[Symbol.dispose]();
    timer?.[Symbol.dispose]();
    server.closeAllConnections();
    server.close();
    return Promise.resolve();
  };
  const address = parseAddress(listenOn);
  if (address.kind !== "tcp") throw new TypeError("checked by the configuration");
  try {
    server.listen({ port: address.port, ...(address.host !== "" && { host: address.host }) });
    await once(server, "listening");
  } catch (error) {
    await close();
    throw asNsmError(error, "INVALID_ARGUMENT", "cannot-listen", `bundle endpoint on ${listenOn}`);
  }
  server.on("error", (err) => log.error({ err }, "bundle endpoint failed"));
  const bound = server.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : address.port;
  log.info({ address: formatAddress({ ...address, port }), spiffeId: id }, "bundle endpoint serves");
  return { [Symbol.asyncDispose]: close };
}
