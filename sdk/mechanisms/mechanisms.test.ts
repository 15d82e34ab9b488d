import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isInterfaceName } from "../interface-name.ts";
import { formatAddress } from "../prefix.ts";
import { KERNEL, generateInterfaceName } from "./kernel.ts";
import { natRules } from "./nat-template.ts";
import { getParameter, setParameter } from "./parameters.ts";
import { VNI_MAX, VXLAN, chooseVni, isEvenVni } from "./vxlan.ts";

const ip = fc
  .constantFrom(4 as const, 6 as const)
  .chain((family) =>
    fc
      .bigInt(0n, (1n << (family === 4 ? 32n : 128n)) - 1n)
      .map((address) => formatAddress({ family, address })),
  );

describe("generated interface names", () => {
  it("are always names that an interface may have", () => {
    const service = fc.oneof(
      fc.string({ unit: "binary", maxLength: 12 }),
      fc.constantFrom("", "-h", "..", "0123456789"),
    );
    fc.assert(
      fc.property(service, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (name, random) => {
        expect(isInterfaceName(generateInterfaceName(name, () => random))).toBe(true);
      }),
      { numRuns: 10_000 },
    );
  });

  it("begin with the service and differ", () => {
    const names = Array.from({ length: 100 }, () => generateInterfaceName("my-service-long"));
    expect(names.every((name) => /^my-service-[0-9A-Za-z]{4}$/.test(name))).toBe(true);
    expect(new Set(names).size).toBeGreaterThan(95);
  });
});

describe("parameters", () => {
  it("read back what was written", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4094 }), fc.boolean(), (vlan, flag) => {
        const parameters = {};
        setParameter(parameters, KERNEL.vlan, vlan);
        setParameter(parameters, KERNEL.supportsVlan, flag);
        expect(getParameter(parameters, KERNEL.vlan)).toBe(vlan);
        expect(getParameter(parameters, KERNEL.supportsVlan)).toBe(flag);
      }),
    );
  });
});

describe("VXLAN identifiers", () => {
  it("chosen by two nodes for each other never collide", () => {
    fc.assert(
      fc.property(ip, ip, (a, b) => {
        fc.pre(a !== b);
        expect(isEvenVni({ src_ip: a, dst_ip: b })).toBe(!isEvenVni({ src_ip: b, dst_ip: a }));
      }),
    );
  });

  it("are free, in range and of the right parity", () => {
    fc.assert(
      fc.property(ip, ip, fc.integer({ min: 1, max: 1000 }), (src_ip, dst_ip, seed) => {
        const parameters = { src_ip, dst_ip };
        const random = () => ((seed = (seed * 48_271) % 0x7fff_ffff) - 1) / 0x7fff_ffff;
        const vni = chooseVni(parameters, (taken) => taken % 3 === 0, random);
        expect(vni % 3).not.toBe(0);
        expect(vni).toBeGreaterThan(0);
        expect(vni).toBeLessThanOrEqual(VNI_MAX);
        expect(vni % 2 === 0).toBe(isEvenVni(parameters));
      }),
    );
  });

  it("run out instead of being given twice", () => {
    const parameters = { src_ip: "10.0.0.1", dst_ip: "10.0.0.2" };
    expect(() => chooseVni(parameters, () => true, Math.random)).toThrowError(
      expect.objectContaining({ code: "RESOURCE_EXHAUSTED", reason: "vni-exhausted" }),
    );
    expect(chooseVni({ ...parameters, vni: "77" }, () => true, Math.random)).toBe(77);
    expect(getParameter({ vni: "16777216" }, VXLAN.vni)).toBe(0);
  });
});

describe("rules of a NAT template", () => {
  it.each([
    "{{range .NsmSrcIPs}}x",
    "{{end}}",
    "{{.}}",
    "{{range .NsmSrcIPs}}{{range .NsmDstIPs}}{{end}}{{end}}",
    "{{.X}}",
  ])("are refused: %s", (template) => {
    expect(() => natRules(template, "nsm-1", undefined)).toThrowError(
      expect.objectContaining({ reason: "bad-nat-template" }),
    );
  });
});
