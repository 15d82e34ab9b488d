/** What a component under test gets in place of the outside world: clock, own test identity, recorded peers and answers. */
import { createTokenMinter } from "../../../sdk/token.ts";
import type { TokenMinter } from "../../../sdk/token.ts";
import { parseSpiffeId } from "../../../sdk/spiffe/id.ts";
import type { X509Snapshot } from "../../../sdk/spiffe/source.ts";
import { makeCa, makeCertificate, svidExtensions, svidOf } from "../../support/certificates.ts";
import { createFakeClock } from "../../support/fake-clock.ts";
import type { FakeClock } from "../../support/fake-clock.ts";
import type { Subject } from "./compare.ts";
import { createNames } from "./names.ts";
import { createPlaces } from "./places.ts";
import type { Places } from "./places.ts";
import { certificateOf, tokenLifetimeMs } from "./recording.ts";
import type { RecordedCase, RecordedComponent } from "./recording.ts";
import type { Report } from "./report.ts";

export interface Bench {
  readonly recorded: RecordedCase;
  readonly component: RecordedComponent;
  readonly report: Report;
  readonly clock: FakeClock;
  readonly own: X509Snapshot;
  readonly minter: TokenMinter;
  readonly trustDomain: string;
  readonly subject: Subject;
  readonly places: Places;
}

/** An SVID with the recorded id and validity, and a key of our own. */
export async function createBench(
  recorded: RecordedCase,
  component: RecordedComponent,
  report: Report,
): Promise<Bench> {
  const clock = createFakeClock(Date.parse(recorded.startedAt));
  const { spiffeId } = component;
  const { trustDomain } = parseSpiffeId(spiffeId);
  const { validFromDate, validToDate } = certificateOf(component);
  const leaf = await makeCertificate({
    issuer: await makeCa(`CN=${trustDomain}`),
    extensions: svidExtensions(spiffeId),
    notBeforeMs: validFromDate.getTime(),
    notAfterMs: validToDate.getTime(),
  });
  const svid = svidOf(spiffeId, leaf);
  const [certificate] = svid.chain;
  if (certificate === undefined) throw new Error("an SVID has a leaf");
  const lifetimeMs = tokenLifetimeMs(recorded);
  return {
    recorded,
    component,
    report,
    clock,
    own: { generation: 1, svid, bundles: new Map() },
    minter: createTokenMinter({ clock, maxLifetimeMs: lifetimeMs }),
    trustDomain,
    subject: { name: component.name, spiffeId, certificate, names: createNames(), lifetimeMs },
    places: createPlaces(recorded),
  };
}
