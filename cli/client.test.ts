import { expect, test } from "vitest";
import { openMeshClient } from "./client.ts";

const nobody = "unix:///nonexistent/nsm-test.sock";
const signal = new AbortController().signal;

test("without a SPIFFE identity nothing is asked, and the error names the socket and the remedy", async () => {
  const options = { manager: undefined, env: { SPIFFE_ENDPOINT_SOCKET: nobody }, signal };
  await expect(openMeshClient(options)).rejects.toMatchObject({
    code: "UNAVAILABLE",
    reason: "identity-unavailable",
    message: expect.stringMatching(
      /without a SPIFFE identity.*\/nonexistent\/nsm-test\.sock.*SPIFFE_ENDPOINT_SOCKET/s,
    ),
  });
});

test("a manager that is no address is refused before anything is opened", async () => {
  const options = { manager: "http://manager", env: { SPIFFE_ENDPOINT_SOCKET: nobody }, signal };
  await expect(openMeshClient(options)).rejects.toMatchObject({
    reason: "bad-configuration",
    message: '--manager "http://manager": expected unix:///path, tcp://host:port or host:port',
  });
});
