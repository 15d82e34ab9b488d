import { expect, test } from "vitest";
import { findProgram, provide } from "./requirements.ts";
import type { Installer } from "./requirements.ts";

const missing = { command: "nsm-no-such-program", package: "no-such-package", why: "for this test" };
const present = { command: "sh", package: "dash", why: "for this test" };

/** Records the calls; the n-th answers with the n-th status, then 0. What is installed is found afterwards. */
function installer(changes: Partial<Installer>, statuses: readonly number[] = []) {
  const calls: string[] = [];
  let isInstalled = false;
  const aptGet = (args: readonly string[]) => {
    calls.push(args.join(" "));
    const status = statuses[calls.length - 1] ?? 0;
    if (args[0] === "install" && status === 0) isInstalled = true;
    return { status, text: "E: Unable to locate package\n" };
  };
  const find = (command: string) => (command === "sh" || isInstalled ? `/bin/${command}` : undefined);
  return { calls, system: { isRoot: true, hasLists: true, aptGet, find, ...changes } };
}
const install = "install --yes --no-install-recommends no-such-package";

test("nothing is installed or said when nothing is missing", () => {
  const { calls, system } = installer({});
  provide([present], (line) => expect.unreachable(line), system);
  expect(calls).toEqual([]);
});

test("what is missing is installed, and one line says so", () => {
  const { calls, system } = installer({});
  const said: string[] = [];
  provide([present, missing], (line) => said.push(line), system);
  expect(calls).toEqual([install]);
  expect(said).toEqual([
    "installing no-such-package with apt-get: missing nsm-no-such-program (for this test)",
  ]);
});

test("lists are fetched first where there are none, and again where they are too old", () => {
  const fresh = installer({ hasLists: false });
  provide([missing], () => undefined, fresh.system);
  expect(fresh.calls).toEqual(["update", install]);

  const old = installer({}, [100]);
  provide([missing], () => undefined, old.system);
  expect(old.calls).toEqual([install, "update", install]);
});

test.for([{ isRoot: false }, { aptGet: undefined }])(
  "the packages are named when they can't be installed: %j",
  (changes) => {
    const { calls, system } = installer(changes);
    expect(() => provide([missing, present], () => undefined, system)).toThrow(
      "missing: nsm-no-such-program (for this test). Install the packages no-such-package (names of Debian and Ubuntu)",
    );
    expect(calls).toEqual([]);
  },
);

test("what apt-get said and the packages are in the error when it fails", () => {
  const { system } = installer({ hasLists: false }, [0, 100]);
  expect(() => provide([missing], () => undefined, system)).toThrow(
    expect.objectContaining({
      code: "FAILED_PRECONDITION",
      reason: "tools-missing",
      message: expect.stringMatching(
        /Unable to locate package.*Install the packages no-such-package by hand/,
      ),
    }),
  );
});

test("a package that does not bring its program is an error, too", () => {
  const { calls, system } = installer({ find: () => undefined });
  expect(() => provide([missing], () => undefined, system)).toThrow(
    "apt-get installed no-such-package and they are not there",
  );
  expect(calls).toEqual([install]);
});

test("programs are found on PATH and in the folders of system programs", () => {
  expect(findProgram("sh")).toMatch(/\/sh$/);
  expect(findProgram(missing.command)).toBeUndefined();
});
