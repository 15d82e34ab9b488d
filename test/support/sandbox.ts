/**
 * A world of its own for tests that change the kernel: network, process and mount namespace, and an empty /run.
 *
 * Two test runs on one machine don't see each other, the inventory sees nothing foreign, and whatever a failing test leaves
 * behind ends with the sandbox.
 */

/** Runs in the sandbox as its first process, waits for `"$@"` and reaps what loses its parent. */
const INIT = `
mount -t tmpfs -o mode=0755 tmpfs /run &&
mkdir -m 1777 /run/tmp /run/lock &&
mkdir /run/mount && # before mount(8) makes it
ip link set lo up &&
TMPDIR=/run/tmp _NSM_SANDBOX=1 "$@"
exit $?
`;

/** The command line that runs `command` in a fresh sandbox; exit code and standard streams pass through. Needs root. */
export function insideSandbox(command: readonly string[]): readonly string[] {
  const namespaces = ["--net", "--pid", "--mount", "--fork", "--kill-child=SIGKILL", "--mount-proc"];
  return ["unshare", ...namespaces, "sh", "-c", INIT, "sh", ...command];
}

export function inSandbox(): boolean {
  return process.env["_NSM_SANDBOX"] === "1";
}
