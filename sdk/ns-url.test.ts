import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NsmError } from "./errors.ts";
import { isInterfaceName } from "./interface-name.ts";
import { parseNsUrl, parseServiceUrls } from "./ns-url.ts";

describe("the wish list of our client", () => {
  it("is what it says", () => {
    const urls = parseServiceUrls("kernel://web@far.example/nsm-1?app=a%2Cb&zone=c+d,KERNEL://db");
    expect(urls).toMatchObject([
      {
        networkService: "web@far.example",
        mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { name: "nsm-1" } },
        labels: { app: "a,b", zone: "c d" },
      },
      { networkService: "db", mechanism: { type: "KERNEL", parameters: {} }, labels: {} },
    ]);
    expect(parseServiceUrls("")).toEqual([]);
    expect(parseServiceUrls("kernel://db/")[0]?.mechanism.parameters).toEqual({});
  });

  it("keeps labels with names that mean something to JavaScript", () => {
    const [url] = parseServiceUrls("kernel://db?__proto__=a&constructor=b");
    expect(Object.entries(url?.labels ?? {})).toEqual([
      ["__proto__", "a"],
      ["constructor", "b"],
    ]);
  });

  it.each([
    ["memif://db", "bad-service-url", "use kernel://"],
    ["db", "bad-service-url", "use kernel://"],
    ["kernel://", "bad-service-url", "lacks the service"],
    ["kernel://web@", "bad-service-url", "lacks the service"],
    ["kernel://@far", "bad-service-url", "lacks the service"],
    ["kernel://a@b@c", "bad-service-url", "letters"],
    ["kernel://a<b>", "bad-service-url", "letters"],
    ["kernel://ž", "bad-service-url", "letters"],
    ["kernel://-h", "bad-service-url", "letters"],
    ["kernel://$(id)", "bad-service-url", "letters"],
    ["kernel://db:80", "bad-service-url", "port"],
    ["kernel://db:", "bad-service-url", "port"],
    ["kernel://a:b@c", "bad-service-url", "password"],
    ["kernel://db#x", "bad-service-url", "fragment"],
    ["kernel://db/a/b", "bad-service-url", "more than one"],
    ["kernel://db/a/", "bad-service-url", "more than one"],
    ["kernel://db/a%2Fb", "bad-service-url", "more than one"],
    ["kernel://db/%2e%2e", "bad-interface-name", '".."'],
    ["kernel://db/-h", "bad-interface-name", '"-h"'],
    ["kernel://db/$(id)", "bad-interface-name", '"$(id)"'],
    ["kernel://db/x%25d", "bad-interface-name", '"x%d"'],
    ["kernel://db/x%0a", "bad-interface-name", '"x\\n"'],
    ["kernel://db/sixteen-letters-", "bad-interface-name", "sixteen-letters-"],
    ["kernel://db/lo", "bad-interface-name", "lo"],
    ["kernel://db/x%d", "bad-url", "hexadecimal"],
    ["kernel://d b", "bad-url", "character"],
    ["kernel://db\n", "bad-url", "control"],
    ["kernel://db?a=1&a=2", "bad-service-url", "twice"],
    ["kernel://db?a=1;b=2", "bad-service-url", "cannot be read"],
    ["kernel://db?a=%zz", "bad-service-url", "cannot be read"],
    ["kernel://db?a=%FF", "bad-url", "UTF-8"],
    ["kernel://db?=x", "bad-service-url", "label"],
    ["kernel://db?a=%00", "bad-service-url", "control"],
    [`kernel://db?${"k".repeat(64)}=x`, "bad-service-url", "63"],
    [`kernel://db?k=${"v".repeat(254)}`, "bad-service-url", "253"],
    ["kernel://a,", "bad-service-url", "spare comma"],
    ["kernel://a, kernel://b", "bad-url", "first part"],
    ["kernel://a/nsm-1,kernel://b/nsm-1", "bad-service-url", "nsm-1 twice"],
    [Array<string>(17).fill("kernel://a").join(","), "bad-service-url", "at most 16"],
  ])("refuses %s", (text, reason, part) => {
    expect(() => parseServiceUrls(text)).toThrowError(
      expect.objectContaining({ code: "INVALID_ARGUMENT", reason, message: expect.stringContaining(part) }),
    );
  });

  it("is either refused with a reason or safe to use", () => {
    const pieces =
      "kernel:// kernel: a svc @ / // ? & = # : , % %41 %2F %00 .. -h lo eth0 0 x%d ž ; [ ] < $(id) sixteen-letters- _";
    const piece = fc.constantFrom(...pieces.split(" "), " ", "\n");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 10 }), fc.boolean(), (pieces, isUrl) => {
        const text = (isUrl ? "kernel://" : "") + pieces.join("");
        for (const { networkService, mechanism, labels } of acceptedOf(text)) {
          expect(networkService).toMatch(/^[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?$/);
          expect(Object.keys(mechanism.parameters)).toEqual("name" in mechanism.parameters ? ["name"] : []);
          expect(Object.values(mechanism.parameters).every(isInterfaceName)).toBe(true);
          expect(Object.entries(labels).flat().join("")).not.toMatch(/[\0\n]/);
        }
      }),
      { numRuns: 30_000 },
    );
  });

  it("means the same to every reader of the common grammar", () => {
    const word = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?$/);
    const label = fc.tuple(
      word,
      fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => text.replaceAll(",", "")),
    );
    fc.assert(
      fc.property(
        word,
        fc.option(word),
        fc.uniqueArray(label, { maxLength: 3, selector: ([key]) => key }),
        (...of) => {
          const [service, domain, labels] = of;
          const query = new URLSearchParams(labels).toString();
          const text = `kernel://${service}${domain === null ? "" : `@${domain}`}${query === "" ? "" : `?${query}`}`;
          const strict = parseServiceUrls(text)[0];
          expect(strict).toEqual(parseNsUrl(text));
          expect(strict?.labels).toEqual(Object.fromEntries(labels));
        },
      ),
      { numRuns: 3000 },
    );
  });
});

/** What the parser accepts; nothing when it refuses with an error of ours. */
function acceptedOf(text: string): ReturnType<typeof parseServiceUrls> {
  try {
    return parseServiceUrls(text);
  } catch (error) {
    if (error instanceof NsmError) return [];
    throw error;
  }
}
