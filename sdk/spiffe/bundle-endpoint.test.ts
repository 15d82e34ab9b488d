/** T38: what a bundle endpoint may do, and what it may not. */
import { createServer } from "node:https";
import type { Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import { once } from "node:events";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { makeAuthority, makeCertificate, svidOf, x509Of } from "../../test/support/certificates.ts";
import type { TestAuthority } from "../../test/support/certificates.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { formatBundle, isNews, parseBundle } from "./bundle.ts";
import type { Bundle } from "./bundle.ts";
import { startPolling } from "./bundle-endpoint.ts";
import { fetchBundle, parseEndpointUrl } from "./bundle-fetch.ts";
import type { EndpointOptions } from "./bundle-fetch.ts";
import type { X509Svid } from "./source.ts";
import { verifySvid } from "./verify.ts";
import { x509 } from "./x509.ts";

const ID = "spiffe://west.test/bundle";

let west: TestAuthority;
let stack: AsyncDisposableStack;
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  west = await makeAuthority("west.test");
});
afterEach(() => stack.disposeAsync());

function tell(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "application/json", connection: "close" }).end(text);
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

const document = (change: Partial<Bundle> = {}) =>
  formatBundle({
    certificates: [x509Of(west.ca)],
    jwtKeys: [],
    sequence: 1n,
    refreshHintSeconds: 60,
    ...change,
  });

const good: Handler = (_, response) => tell(response, document());

/** Serves on this machine with an SVID; resolves with its URL. */
async function serve(handler: Handler, svid?: X509Svid): Promise<string> {
  const { chainPem: cert, privateKeyPem: key } = svid ?? (await west.issue("/bundle")).svid;
  const server: Server = createServer({ cert, key, requestCert: false }, handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return `https://127.0.0.1:${address.port}/bundle`;
}

const { signal } = new AbortController();

function fetched(url: string, more: Partial<EndpointOptions> = {}): Promise<Buffer> {
  const profile = { kind: "https_spiffe", endpointId: ID } as const;
  return fetchBundle({ url, profile, bundles: () => west.bundles, verify: verifySvid, signal, ...more });
}

describe("https_spiffe", () => {
  test("the endpoint with the right id answers, whatever its host name, and needs no certificate of ours", async () => {
    expect((await fetched(await serve(good))).toString()).toBe(document());
  });

  test.each<[string, () => Promise<X509Svid>, string]>([
    ["another id", async () => (await west.issue("/other")).svid, "wrong-endpoint-id"],
    [
      "the right id by another trust domain's CA",
      async () => (await (await makeAuthority("east.test")).issue("", { as: ID })).svid,
      "svid-untrusted",
    ],
    [
      "an id of another trust domain, whose CA is not that of the endpoint's",
      async () => (await (await makeAuthority("east.test")).issue("/bundle")).svid,
      "svid-unknown-trust-domain",
    ],
    [
      "a certificate that ran out",
      async () => (await west.issue("/bundle", { lifetimeMs: -1000 })).svid,
      "svid-expired",
    ],
  ])("an endpoint with %s is refused before it is asked", async (_, svid, reason) => {
    let asked = 0;
    const url = await serve(
      (request, response) => {
        asked++;
        good(request, response);
      },
      await svid(),
    );
    await expect(fetched(url)).rejects.toMatchObject({ code: "UNAUTHENTICATED", reason });
    expect(asked).toBe(0);
  });
});

describe("https_web", () => {
  const web = async (name: x509.JsonGeneralName, more: Partial<EndpointOptions> = {}, handler = good) => {
    const leaf = await makeCertificate({
      issuer: west.ca,
      extensions: [new x509.SubjectAlternativeNameExtension([name])],
    });
    const url = await serve(handler, svidOf(ID, leaf));
    const webRoots = x509Of(west.ca).toString();
    return await fetched(url, { profile: { kind: "https_web" }, webRoots, ...more });
  };

  test("a certificate of a trusted root for that very host is right", async () => {
    expect((await web({ type: "ip", value: "127.0.0.1" })).toString()).toBe(document());
  });

  test("another host, another root, or an SVID is wrong", async () => {
    const refused = { code: "UNAVAILABLE", reason: "bundle-endpoint" };
    await expect(web({ type: "ip", value: "127.0.0.2" })).rejects.toMatchObject(refused);
    await expect(web({ type: "url", value: ID })).rejects.toMatchObject(refused);
    const other = x509Of((await makeAuthority("other.test")).ca).toString();
    await expect(web({ type: "ip", value: "127.0.0.1" }, { webRoots: other })).rejects.toMatchObject(refused);
  });
});

describe("an answer is refused", () => {
  test.each<[string, Handler, RegExp]>([
    ["with another status", (_, response) => void response.writeHead(201).end(document()), /status 201/],
    ["that is an error", (_, response) => void response.writeHead(500).end(), /status 500/],
    [
      "of 10 MiB, without reading it all",
      (_, response) => {
        const push = (left: number) => {
          if (left > 0) response.write(Buffer.alloc(64 * 1024, 0x20), () => push(left - 1));
          else response.end();
        };
        push(160);
      },
      /more than 1048576 bytes/,
    ],
    [
      "that is cut off",
      (_, response) => {
        response.writeHead(200, { "content-length": "1000" }).write("{");
        setTimeout(() => response.destroy(), 20);
      },
      /aborted|cut off|closed/,
    ],
    ["that closes at once", (request) => void request.socket.destroy(), /hang up|closed|RESET/],
  ])("%s", async (_, handler, text) => {
    await expect(fetched(await serve(handler))).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(text),
    });
  });

  test("that takes longer than ten seconds, however it drips", { timeout: 30_000 }, async () => {
    const url = await serve((_, response) => {
      response.writeHead(200);
      const drip = setInterval(() => response.write(" "), 200);
      response.once("close", () => clearInterval(drip));
    });
    const beganMs = performance.now();
    await expect(fetched(url)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("within 10 s"),
    });
    expect(performance.now() - beganMs).toBeGreaterThan(9000);
  });

  test("nobody there", async () => {
    await expect(fetched("https://127.0.0.1:1/bundle")).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});

describe("a redirect", () => {
  const to =
    (location: string): Handler =>
    (_, response) =>
      void response.writeHead(302, { location }).end();

  test("to an endpoint with the same id is followed, when private addresses are allowed", async () => {
    const target = await serve(good);
    const url = await serve(to(target));
    expect((await fetched(url, { redirectsToPrivate: true })).toString()).toBe(document());
    await expect(fetched(url)).rejects.toThrow(/127\.0\.0\.1.*no public address/);
  });

  test.each([
    "http://127.0.0.1:80/",
    "file:///etc/passwd",
    "https://user@example.org/",
    "https://[::ffff:169.254.169.254]/latest",
    "https://169.254.169.254/",
    "https://10.0.0.1/",
    "https://[fd00::1]/",
    "https://[::1]/",
    "https://localhost/",
    "https://0/",
  ])("to %s is not", async (location) => {
    const failure = { code: expect.stringMatching(/UNAVAILABLE|INVALID_ARGUMENT/) };
    await expect(fetched(await serve(to(location)))).rejects.toMatchObject({
      ...failure,
      message: expect.stringMatching(/no public address|expected https/),
    });
  });

  test("to an endpoint with another id is refused, and a ring of them ends", async () => {
    const other = await serve(good, (await west.issue("/other")).svid);
    const more = { redirectsToPrivate: true };
    await expect(fetched(await serve(to(other)), more)).rejects.toMatchObject({
      reason: "wrong-endpoint-id",
    });
    await expect(fetched(await serve(to("/bundle")), more)).rejects.toThrow(/redirects/);
  });
});

test.each(["http://west.test/", "https://a:b@west.test/", "https://a@west.test", "west.test", ""])(
  "%j is no endpoint",
  (text) => expect(() => parseEndpointUrl(text)).toThrow(/expected https/),
);

describe("polling", () => {
  /** An endpoint whose document tests replace, and what is taken of it. */
  async function polled(options: { readonly leastHintMs?: number } = {}) {
    const clock = createFakeClock();
    let published = document();
    let asked = 0;
    let known: Bundle | undefined;
    const errors: string[] = [];
    const warnings: string[] = [];
    const write = (line: string) => {
      const { level, err } = JSON.parse(line);
      if (level >= 40) (level >= 50 ? errors : warnings).push(String(err.message));
    };
    const log = pino({ level: "info" }, { write });
    const url = await serve((_, response) => {
      asked++;
      tell(response, published);
    });
    stack.use(
      startPolling({
        trustDomain: "west.test",
        url,
        profile: { kind: "https_spiffe", endpointId: ID },
        verify: verifySvid,
        // Self-serving: what is known first, what was fetched afterwards.
        bundles: () => new Map([["west.test", known?.certificates ?? [x509Of(west.ca)]]]),
        take: (text) => {
          const next = parseBundle(text);
          if (isNews(next, known, "west.test")) known = next;
          return Promise.resolve();
        },
        log,
        clock,
        ...options,
      }),
    );
    const settled = async (times: number) => {
      await vi.waitFor(() => expect(asked).toBeGreaterThanOrEqual(times), { timeout: 5000 });
      await vi.waitFor(() => expect(clock.armed).toBe(1), { timeout: 5000 });
    };
    await settled(1);
    return {
      clock,
      errors,
      warnings,
      settled,
      publish: (change: Partial<Bundle> | string) =>
        (published = typeof change === "string" ? change : document(change)),
      asked: () => asked,
      known: () => known,
    };
  }

  test("asks again after the hint, and takes what is new", async () => {
    const { clock, publish, settled, known, asked } = await polled();
    expect(known()?.sequence).toBe(1n);
    publish({ sequence: 2n, refreshHintSeconds: 120 });
    await clock.advance(59_999);
    expect(asked()).toBe(1);
    await clock.advance(1);
    await settled(2);
    expect(known()?.sequence).toBe(2n);
    await clock.advance(119_999);
    expect(asked()).toBe(2);
  });

  test.each([
    ["none", undefined, 300],
    ["0", 0, 300],
    ["a second", 1, 60],
    ["a year", 31_536_000, 86_400],
  ] as const)("holds a hint of %s within its bounds", async (_, refreshHintSeconds, seconds) => {
    const { clock, publish, settled, asked } = await polled();
    publish({ refreshHintSeconds });
    await clock.advance(60_000);
    await settled(2);
    await clock.advance(seconds * 1000 - 1);
    expect(asked()).toBe(2);
    await clock.advance(1);
    await settled(3);
  });

  test("refuses a sequence that goes backwards, each time with an alarm", async () => {
    const { clock, publish, settled, known, errors } = await polled();
    publish({ sequence: 0n, certificates: [] });
    await clock.advance(60_000);
    await settled(2);
    await clock.advance(60_000);
    await settled(3);
    expect(known()?.certificates).toHaveLength(1);
    expect(errors).toEqual([expect.stringMatching(/sequence 0 is older/), expect.stringMatching(/older/)]);
  });

  test("keeps what is known when the endpoint fails, complains once, and asks no sooner", async () => {
    const { clock, publish, settled, known, warnings, asked } = await polled();
    publish("{");
    for (const times of [2, 3]) {
      await clock.advance(60_000);
      await settled(times);
    }
    expect(asked()).toBe(3);
    expect(known()?.sequence).toBe(1n);
    expect(warnings).toHaveLength(1);
  });

  test("a bundle without keys withdraws everybody, the endpoint too: nobody speaks for that domain any more", async () => {
    const { clock, publish, settled, known, warnings } = await polled();
    publish({ sequence: 2n, certificates: [] });
    await clock.advance(60_000);
    await settled(2);
    expect(known()?.certificates).toEqual([]);
    publish({ sequence: 3n });
    await clock.advance(60_000);
    await vi.waitFor(() => expect(warnings).toHaveLength(1), { timeout: 5000 });
    expect(known()?.certificates).toEqual([]);
  });
});
