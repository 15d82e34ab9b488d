/** The authority's own bundle endpoint (SPIFFE standard "Federation", profile https_spiffe): anybody may ask, its SVID proves who answers. */
import { createPrivateKey } from "node:crypto";
import type { Socket } from "node:net";
import { createServer } from "node:tls";
import type { Clock } from "../sdk/clock.ts";
import { formatAddress, parseAddress } from "../sdk/grpc/address.ts";
import { openListener } from "../sdk/grpc/listener.ts";
import { createHttpsDoor } from "../sdk/https-door.ts";
import type { Logger } from "../sdk/log.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import { readCertificates } from "../sdk/spiffe/certificate.ts";
import { createWaitingRoom, holderOf } from "../sdk/waiting-room.ts";
import type { Svids } from "./svids.ts";
import type { Trust } from "./trust.ts";

const HANDSHAKE_MS = 3000;
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

/** Serves when it resolves. Throws as `openListener`. */
export async function openBundleServer(options: BundleServerOptions): Promise<AsyncDisposable> {
  const { listenOn, id, trust, log, clock } = options;
  await using stack = new AsyncDisposableStack();
  const document = () => ({ status: 200, body: formatBundle(trust.current().own) });
  const door = stack.use(createHttpsDoor({ "GET *": document }, { log, clock }));
  const handshakes = createServer({ minVersion: "TLSv1.2", handshakeTimeout: HANDSHAKE_MS }, (socket) => {
    socket.on("error", (err) => log.debug({ err }, "connection failed"));
    door.accept(socket);
  });
  handshakes.on("tlsClientError", (err, socket) => {
    log.debug({ err }, "handshake failed");
    socket.destroy();
  });
  stack.use(await keepCertificate(options, (certificate) => handshakes.setSecureContext(certificate)));
  const room = createWaitingRoom(MAX_CONNECTIONS, clock);
  const open = new Set<Socket>();
  stack.defer(() => {
    for (const socket of open) socket.destroy();
  });
  const accept = (raw: Socket) => {
    raw.on("error", (err) => log.debug({ err }, "connection failed"));
    const place = room.admit({
      holder: holderOf(raw.remoteAddress),
      isSilent: () => raw.bytesRead === 0,
      dismiss: () => void raw.destroy(),
    });
    if (place === undefined) {
      raw.destroy();
      return;
    }
    open.add(raw);
    raw.once("close", () => {
      place[Symbol.dispose]();
      open.delete(raw);
    });
    handshakes.emit("connection", raw);
  };
  const listener = stack.use(await openListener(parseAddress(listenOn), 0o600, accept));
  log.info({ address: formatAddress(listener.address), spiffeId: id }, "bundle endpoint serves");
  return stack.move();
}

interface Certificate {
  readonly cert: string;
  readonly key: string | Buffer;
  readonly minVersion: "TLSv1.2";
}

/** Gives the first before it resolves, and each that follows, until it is disposed of. */
async function keepCertificate(
  { id, svids, trust, log, clock }: BundleServerOptions,
  show: (certificate: Certificate) => void,
): Promise<Disposable> {
  let timer: Disposable | undefined;
  let isClosed = false;
  const renew = async () => {
    const { certificate, privateKey, renewAtMs } = await svids.of(id);
    if (isClosed) return;
    const key = createPrivateKey({ key: Buffer.from(privateKey), format: "der", type: "pkcs8" });
    show({
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
  return {
    [Symbol.dispose]() {
      isClosed = true;
      watching[Symbol.dispose]();
      timer?.[Symbol.dispose]();
    },
  };
}
