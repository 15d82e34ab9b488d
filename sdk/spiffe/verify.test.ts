import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:tls";
import type { TLSSocket } from "node:tls";

import { beforeAll, describe, expect, test } from "vitest";
import {
  P256,
  caExtensions,
  makeAuthority,
  makeCa,
  makeCertificate,
  rsa,
  svidExtensions,
  x509Of,
} from "../../test/support/certificates.ts";
import type { CertificateOptions, Holder, TestAuthority } from "../../test/support/certificates.ts";
import { NsmError } from "../errors.ts";
import type { X509Snapshot } from "./source.ts";
import { verifySvid } from "./verify.ts";
import type { Bundles } from "./verify.ts";
import { x509 } from "./x509.ts";

const ID = "spiffe://a.test/ns/x";
const now = Date.now();
const { digitalSignature, keyEncipherment, keyCertSign, cRLSign } = x509.KeyUsageFlags;
const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;

let a: TestAuthority;
let b: TestAuthority;
let both: Bundles;
let leafKeys: Holder["keys"];
beforeAll(async () => {
  [a, b] = await Promise.all([makeAuthority("a.test"), makeAuthority("b.test")]);
  both = new Map([...a.bundles, ...b.bundles]);
  leafKeys = (await makeCertificate({ extensions: [] })).keys;
});

/** The verdict in one word: the id, or the reason of the refusal. */
function verdict(chain: readonly Holder[], bundles: Bundles = both, nowMs = now): string {
  try {
    return verifySvid(
      chain.map(({ der }) => der),
      bundles,
      nowMs,
    ).id;
  } catch (error) {
    if (error instanceof NsmError && error.code === "UNAUTHENTICATED") return error.reason;
    throw error;
  }
}

function leaf(options: Partial<CertificateOptions> = {}): Promise<Holder> {
  const keys = options.algorithm === undefined && { keys: leafKeys };
  return makeCertificate({ issuer: a.ca, extensions: svidExtensions(ID), ...keys, ...options });
}

function alternativeNames(...names: readonly x509.JsonGeneralName[]): x509.Extension {
  return new x509.SubjectAlternativeNameExtension([...names], true);
}
const uri = (value: string): x509.JsonGeneralName => ({ type: "url", value });

describe("every combination of leaf extensions", () => {
  // Each choice says alone whether a leaf with it may pass; a leaf passes when all its choices do.
  const san: readonly (readonly [isGood: boolean, extensions: readonly x509.Extension[]])[] = [
    [true, [alternativeNames(uri(ID))]],
    [true, [alternativeNames({ type: "dns", value: "x" }, uri(ID), { type: "ip", value: "10.0.0.1" })]],
    [true, [alternativeNames({ type: "email", value: "spiffe://b.test/x" }, uri(ID))]],
    [false, []],
    [false, [alternativeNames({ type: "dns", value: "spiffe://a.test/ns/x" })]],
    [false, [alternativeNames(uri(ID), uri("spiffe://a.test/other"))]],
    [false, [alternativeNames(uri(ID), uri(ID))]],
    [false, [alternativeNames(uri(ID)), alternativeNames({ type: "dns", value: "x" })]],
    [false, [alternativeNames(uri("spiffe://a.test"))]],
    [false, [alternativeNames(uri("spiffe://a.test/ns/../x"))]],
    [false, [alternativeNames(uri("https://a.test/ns/x"))]],
  ];
  const constraints: readonly (readonly [boolean, readonly x509.Extension[]])[] = [
    [true, []],
    [true, [new x509.BasicConstraintsExtension(false, undefined, false)]],
    [false, [new x509.BasicConstraintsExtension(true, 0, true)]],
  ];
  const usages: readonly (readonly [boolean, readonly x509.Extension[]])[] = [
    [true, [new x509.KeyUsagesExtension(digitalSignature, true)]],
    [true, [new x509.KeyUsagesExtension(digitalSignature | keyEncipherment, false)]],
    [false, []],
    [false, [new x509.KeyUsagesExtension(keyEncipherment, true)]],
    [false, [new x509.KeyUsagesExtension(digitalSignature | keyCertSign, true)]],
    [false, [new x509.KeyUsagesExtension(digitalSignature | cRLSign, true)]],
  ];
  const purposes: readonly (readonly [boolean, readonly x509.Extension[]])[] = [
    [true, []],
    [true, [new x509.ExtendedKeyUsageExtension([clientAuth, serverAuth, "1.3.6.1.5.5.7.3.4"])]],
    [false, [new x509.ExtendedKeyUsageExtension([serverAuth])]],
    [false, [new x509.ExtendedKeyUsageExtension([clientAuth], true)]],
  ];

  test("has its expected verdict", async () => {
    let count = 0;
    for (const choice of combinations([san, constraints, usages, purposes])) {
      const extensions = choice.flatMap(([, extension]) => extension);
      const isGood = choice.every(([isGood]) => isGood);
      const answer = verdict([await leaf({ extensions })]);
      const label = JSON.stringify(
        extensions.map((extension) => x509.TextConverter.serialize(extension.toTextObject())),
      );
      expect(answer === ID, `${answer} for ${label}`).toBe(isGood);
      count++;
    }
    expect(count).toBeGreaterThan(600);
  });
});

function combinations<T>(lists: readonly (readonly T[])[]): T[][] {
  return lists.reduce<T[][]>(
    (heads, list) => heads.flatMap((head) => list.map((item) => [...head, item])),
    [[]],
  );
}

describe("leaf", () => {
  const minute = 60_000;
  test.each<[name: string, options: Partial<CertificateOptions>, expected: string]>([
    ["within its validity", { notBeforeMs: now - minute, notAfterMs: now + minute }, ID],
    ["valid from in 25 s: clocks differ", { notBeforeMs: now + 25_000 }, ID],
    ["valid from in 40 s", { notBeforeMs: now + 40_000 }, "svid-not-yet-valid"],
    ["expired 2 s ago: no leeway", { notAfterMs: now - 2000 }, "svid-expired"],
    ["RSA 2048", { algorithm: rsa(2048) }, ID],
    ["RSA 1024", { algorithm: rsa(1024) }, "svid-not-leaf"],
    ["P-384", { algorithm: { ...P256, namedCurve: "P-384" } }, ID],
    ["Ed25519", { algorithm: { name: "Ed25519" } }, ID],
    ["signed with SHA-1", { hash: "SHA-1" }, "svid-untrusted"],
  ])("%s", async (_, options, expected) => {
    expect(verdict([await leaf(options)])).toBe(expected);
  });

  test.each(["1.2.3.4", "2.5.29.30", "2.5.29.36"])(
    "unknown critical extension %s is refused, others pass",
    async (oid) => {
      const withExtension = (isCritical: boolean) =>
        leaf({
          extensions: [
            ...svidExtensions(ID),
            new x509.Extension(oid, isCritical, Buffer.from("3000", "hex")),
          ],
        });
      expect(verdict([await withExtension(true)])).toBe("svid-not-leaf");
      expect(verdict([await withExtension(false)])).toBe(ID);
    },
  );

  test.each(["2.5.29.15", "2.5.29.19", "2.5.29.37", "1.2.3.4"])(
    "extension %s twice is refused",
    async (oid) => {
      const twin =
        svidExtensions(ID).find(({ type }) => type === oid) ??
        new x509.Extension(oid, false, Buffer.from("0500", "hex"));
      const extensions = svidExtensions(ID).filter(({ type }) => type !== oid);
      expect(verdict([await leaf({ extensions: [...extensions, twin, twin] })])).toBe("svid-malformed");
    },
  );

  test.each([
    "spiffe://a.test/",
    "SPIFFE://a.test/x",
    "spiffe://A.test/x",
    "spiffe://a.test:1/x",
    "spiffe://u@a.test/x",
    "spiffe://a.test/x?",
    "spiffe://a.test/%61",
    "spiffe://a.test//x",
    "spiffe://a.test/x\u0000",
  ])("id %j is refused", async (id) => {
    expect(verdict([await leaf({ extensions: svidExtensions(id) })])).toBe("svid-malformed");
  });

  test("a CA of the bundle is nobody's peer", () => {
    expect(verdict([a.ca])).toBe("svid-malformed");
  });

  test("no certificate, rubbish, trailing bytes and PEM are refused", async () => {
    const { der, ...rest } = await leaf();
    expect(verdict([])).toBe("svid-malformed");
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from("rubbish"),
      Buffer.concat([der, Buffer.from([0])]),
      Buffer.from(new X509Certificate(der).toString()),
    ])
      expect(verdict([{ ...rest, der: bytes }])).toBe("svid-malformed");
    expect(verdict(Array.from({ length: 9 }, () => ({ ...rest, der })))).toBe("svid-malformed");
  });
});

describe("path", () => {
  test("another domain's CA cannot speak for this one, though both are trusted", async () => {
    const forged = await leaf({ issuer: b.ca });
    expect(verdict([forged])).toBe("svid-untrusted");
    expect(verdict([forged, b.ca])).toBe("svid-untrusted");
    const impostor = await makeCa("CN=a.test");
    expect(verdict([await leaf({ issuer: impostor }), impostor])).toBe("svid-untrusted");
    expect(verdict([await leaf()], b.bundles)).toBe("svid-unknown-trust-domain");
    expect(verdict([await leaf()], new Map([["a.test", []]]))).toBe("svid-untrusted");
  });

  test("a changed byte in the signature is noticed", async () => {
    const { der, ...rest } = await leaf();
    const changed = Buffer.from(der);
    changed.writeUInt8(changed.readUInt8(changed.length - 1) ^ 1, changed.length - 1);
    expect(verdict([{ ...rest, der: changed }])).toBe("svid-untrusted");
  });

  const day = 86_400_000;
  test.each<[name: string, options: Partial<CertificateOptions>, expected: string]>([
    ["proper", {}, ID],
    ["path length 0", { extensions: caExtensions(0) }, ID],
    ["expired", { notBeforeMs: now - day, notAfterMs: now - 1000 }, "svid-untrusted"],
    ["not yet valid", { notBeforeMs: now + day, notAfterMs: now + 2 * day }, "svid-untrusted"],
    ["not a CA", { extensions: svidExtensions("spiffe://a.test/evil") }, "svid-untrusted"],
    ["CA without key usage", { extensions: [new x509.BasicConstraintsExtension(true)] }, "svid-untrusted"],
    [
      "CA without keyCertSign",
      { extensions: [new x509.BasicConstraintsExtension(true), new x509.KeyUsagesExtension(cRLSign, true)] },
      "svid-untrusted",
    ],
    [
      "keyCertSign, but no CA",
      { extensions: [new x509.KeyUsagesExtension(keyCertSign, true)] },
      "svid-untrusted",
    ],
    [
      "critical name constraints",
      { extensions: [...caExtensions(), new x509.Extension("2.5.29.30", true, Buffer.from("3000", "hex"))] },
      "svid-untrusted",
    ],
    [
      "unknown critical extension",
      { extensions: [...caExtensions(), new x509.Extension("1.2.3.4", true, Buffer.from("0500", "hex"))] },
      "svid-untrusted",
    ],
    ["RSA 1024", { algorithm: rsa(1024) }, "svid-untrusted"],
    ["RSA 2048", { algorithm: rsa(2048) }, ID],
    ["signed by the other domain", { subject: "CN=by b" }, "svid-untrusted"],
  ])("intermediate: %s", async (name, options, expected) => {
    const issuer = name === "signed by the other domain" ? b.ca : a.ca;
    const intermediate = await makeCa("CN=middle", { issuer, ...options });
    expect(verdict([await leaf({ issuer: intermediate }), intermediate])).toBe(expected);
  });

  test("path lengths count the intermediates below", async () => {
    const root = await makeCa("CN=root", { extensions: caExtensions(1) });
    const bundles = new Map([["a.test", [x509Of(root)]]]);
    const first = await makeCa("CN=first", { issuer: root });
    const second = await makeCa("CN=second", { issuer: first });
    expect(verdict([await leaf({ issuer: first }), first], bundles)).toBe(ID);
    expect(verdict([await leaf({ issuer: second }), second, first], bundles)).toBe("svid-untrusted");
    const tight = await makeCa("CN=tight", { issuer: a.ca, extensions: caExtensions(0) });
    const below = await makeCa("CN=below", { issuer: tight });
    expect(verdict([await leaf({ issuer: below }), below, tight])).toBe("svid-untrusted");
  });

  test("intermediates may come in any order, with strangers between them, but must be there", async () => {
    const first = await makeCa("CN=first", { issuer: a.ca });
    const second = await makeCa("CN=second", { issuer: first });
    const own = await leaf({ issuer: second });
    expect(verdict([own, first, b.ca, second])).toBe(ID);
    expect(verdict([own, second])).toBe("svid-untrusted");
  });

  test.each([
    ["expired", { notBeforeMs: now - day, notAfterMs: now - 1000 }],
    ["without keyCertSign", { extensions: [new x509.BasicConstraintsExtension(true)] }],
    ["not a CA", { extensions: [] }],
  ])("a root that is %s vouches for nobody", async (_, options) => {
    const root = await makeCa("CN=root", options);
    expect(verdict([await leaf({ issuer: root })], new Map([["a.test", [x509Of(root)]]]))).toBe(
      "svid-untrusted",
    );
  });

  test("two CAs of one name and a renewed CA of the same key both work", async () => {
    const twin = await makeCa("CN=a.test");
    const bundles = new Map([["a.test", [x509Of(twin), x509Of(a.ca)]]]);
    expect(verdict([await leaf()], bundles)).toBe(ID);
    expect(verdict([await leaf({ issuer: twin })], bundles)).toBe(ID);
  });

  test("intermediates that sign one another cannot make the search long", async () => {
    const first = await makeCa("CN=loop");
    const ring = await Promise.all(
      Array.from({ length: 7 }, () => makeCa("CN=loop", { keys: first.keys, issuer: first })),
    );
    const chain = [await leaf({ issuer: first }), ...ring];
    const started = performance.now();
    expect(verdict(chain)).toBe("svid-untrusted");
    // Trying every order of them would take hours.
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

describe("remembered chains", () => {
  test("a chain is verified once for each set of bundles, and again when its time is over", async () => {
    const chain = [(await leaf({ notAfterMs: now + 60_000 })).der];
    const first = verifySvid(chain, both, now);
    expect(verifySvid(chain, both, now + 50_000)).toBe(first);
    expect(verifySvid(chain, new Map(both), now)).not.toBe(first);
    expect(() => verifySvid(chain, both, now + 61_000)).toThrow(
      expect.objectContaining({ reason: "svid-expired" }),
    );
    expect(() => verifySvid(chain, both, now - 120_000)).toThrow(
      expect.objectContaining({ reason: "svid-not-yet-valid" }),
    );
    expect(() => verifySvid(chain, b.bundles, now)).toThrow(
      expect.objectContaining({ reason: "svid-unknown-trust-domain" }),
    );
  });

  test("verifying costs less than a millisecond", async () => {
    const chain = [(await leaf()).der];
    const samples = Array.from({ length: 200 }, () => {
      const bundles = new Map(both);
      const started = performance.now();
      verifySvid(chain, bundles, now);
      return performance.now() - started;
    }).sort((x, y) => x - y);
    expect(samples[20]).toBeLessThan(1); // the others may have been interrupted
  });
});

describe("a real TLS session", () => {
  /** Both sides' verdicts of each other, each on the raw chain, with TLS itself trusting both domains. */
  async function session(server: X509Snapshot, client: X509Snapshot) {
    const verify = (socket: TLSSocket) => {
      const leaf = socket.getPeerX509Certificate();
      return verdict(leaf === undefined ? [] : [{ ...a.ca, der: leaf.raw }]);
    };
    const ca = [a.ca, b.ca].map((holder) => x509Of(holder).toString());
    const options = ({ svid }: X509Snapshot) => ({ cert: svid.chainPem, key: svid.privateKeyPem, ca });
    const atServer = Promise.withResolvers<string>();
    const listener = createServer(
      { ...options(server), requestCert: true, rejectUnauthorized: true },
      (socket) => {
        atServer.resolve(verify(socket));
        socket.end();
      },
    ).listen(0);
    await once(listener, "listening");
    const address = listener.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const socket = connect({ port, ...options(client), checkServerIdentity: () => undefined });
    await once(socket, "secureConnect");
    const atClient = verify(socket);
    const verdicts = { atClient, atServer: await atServer.promise };
    socket.destroy();
    listener.close();
    return verdicts;
  }

  test("shows each side the other's id; a forged one passes TLS and is refused here, in both directions", async () => {
    const [server, client] = await Promise.all([a.issue("/server"), b.issue("/client")]);
    expect(await session(server, client)).toEqual({
      atClient: "spiffe://a.test/server",
      atServer: "spiffe://b.test/client",
    });
    const forged = await b.issue("/x", { as: ID });
    expect(await session(forged, client)).toMatchObject({ atClient: "svid-untrusted" });
    expect(await session(server, forged)).toMatchObject({ atServer: "svid-untrusted" });
  });
});
