/** An authority above ours: an intermediate CA that signs in our place, and the roots that everybody trusts instead of a CA of ours. */
import { X509Certificate } from "node:crypto";
import type { Clock } from "../sdk/clock.ts";
import { NsmError, asNsmError, errnoOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { oneAtATime } from "../sdk/one-at-a-time.ts";
import { readCertificates } from "../sdk/spiffe/certificate.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { verifySvid } from "../sdk/spiffe/verify.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import type { Changing } from "./callers.ts";
import { createX509Issuer } from "./issuer.ts";
import type { X509Issuer } from "./issuer.ts";
import { readSafeFile } from "./safe-file.ts";

/** Life of the certificate by which the chain is tried. */
const TRIAL_MS = 60_000;

export interface UpstreamView {
  /** Issues with the chain from the intermediate up to, and without, the root. */
  readonly issuer: X509Issuer;
  readonly roots: readonly X509Certificate[];
}

export interface Upstream extends Changing {
  current(): UpstreamView;
}

/** Paths of PEM files. */
export interface UpstreamFiles {
  /** The intermediate, then those above it, if any; not the root. */
  readonly certificate: string;
  /** Of the intermediate. */
  readonly key: string;
  /** The root, or several. */
  readonly bundle: string;
}

export interface UpstreamOptions {
  readonly files: UpstreamFiles;
  readonly trustDomain: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Reads the files, and again when one of them changes. Throws FAILED_PRECONDITION `bad-upstream` for files that do not fit together,
 * now; later on (one may be written before the other) the last good ones stay in force.
 */
export async function openUpstream(options: UpstreamOptions): Promise<Upstream & AsyncDisposable> {
  const { files, log, clock } = options;
  await using stack = new AsyncDisposableStack();
  const open = async (path: string, which: string) => {
    const variable = `NSM_IDENTITY_UPSTREAM_${which}`;
    const what = "files of the upstream authority";
    const read = (name: string) => readPem(name, variable);
    return stack.use(
      await openWatchedFile({ path, variable, what, read, parse: (text) => text, log, clock }),
    );
  };
  const watched = [
    await open(files.certificate, "CERT"),
    await open(files.key, "KEY"),
    await open(files.bundle, "BUNDLE"),
  ] as const;
  const view = () => {
    const [certificate, key, bundle] = watched;
    return viewOf(certificate.current(), key.current(), bundle.current(), options);
  };
  let current = await view();
  const listeners = new Set<() => void>();
  const inTurn = oneAtATime();
  const reload = async () => {
    try {
      current = await view();
      log.info({ authority: current.issuer.id, roots: current.roots.length }, "upstream authority changed");
      for (const listener of listeners) listener();
    } catch (err) {
      log.error({ err }, "upstream authority cannot be used, the last one stays in force");
    }
  };
  for (const file of watched) stack.use(file.onChange(() => void inTurn(reload)));
  const owned = stack.move();
  return {
    current: () => current,
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function readPem(path: string, variable: string): Promise<string> {
  try {
    return await readSafeFile(path, "upstream");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") throw bad(`${path} (${variable}) does not exist`, error);
    throw error;
  }
}

async function viewOf(
  certificate: string,
  key: string,
  bundle: string,
  { trustDomain, clock, files }: UpstreamOptions,
): Promise<UpstreamView> {
  try {
    const roots = certificatesOf(bundle, files.bundle);
    const chain = certificatesOf(certificate, files.certificate);
    const isRoot = (each: X509Certificate) => roots.some(({ raw }) => raw.equals(each.raw));
    const intermediates = chain.filter((each) => !isRoot(each)).map(({ raw }) => raw);
    const issuer = await createX509Issuer({ certificate: chain.join(""), key }, intermediates);
    // What workloads would refuse is better refused here.
    const trial = await issuer.issue(`${trustDomainId(trustDomain)}/trial`, clock.now(), TRIAL_MS);
    const shown = readCertificates(trial.certificate).map(({ raw }) => raw);
    verifySvid(shown, new Map([[trustDomain, roots]]), clock.now());
    return { issuer, roots };
  } catch (error) {
    const text = `upstream authority (${files.certificate}, ${files.key}, ${files.bundle})`;
    const fault = asNsmError(error, "FAILED_PRECONDITION", "bad-upstream", "read");
    throw bad(`${text}: ${fault.message}`, fault);
  }
}

function certificatesOf(pem: string, path: string): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw bad(`${path} holds no certificate in PEM`);
  return blocks.map((block) => new X509Certificate(block));
}

function bad(text: string, cause?: unknown): NsmError {
  return new NsmError("FAILED_PRECONDITION", "bad-upstream", text, cause);
}
