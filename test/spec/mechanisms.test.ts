/** Mechanism parameters, interface names, VXLAN identifiers and what follows from an IP context as recorded. */
import { fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import {
  ExtraPrefixRequestSchema,
  IPContextSchema,
  RouteSchema,
} from "../../api/gen/connectioncontext_pb.js";
import type { Route } from "../../api/gen/connectioncontext_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { checkInterfaceName, isInterfaceName } from "../../sdk/interface-name.ts";
import { addressesOf, parsePortRange, routesToPeer, routesWithNextHop } from "../../sdk/ip-context.ts";
import { isExtraPrefixRequest } from "../../sdk/ipam/extra-prefixes.ts";
import { IPSEC, MEMIF, VFIO, VLAN } from "../../sdk/mechanisms/devices.ts";
import { KERNEL, answerKernel, generateInterfaceName, offerKernel } from "../../sdk/mechanisms/kernel.ts";
import type { KernelEnd } from "../../sdk/mechanisms/kernel.ts";
import { natRules } from "../../sdk/mechanisms/nat-template.ts";
import { getParameter, setParameter } from "../../sdk/mechanisms/parameters.ts";
import type { Parameter, Parameters } from "../../sdk/mechanisms/parameters.ts";
import { VXLAN, chooseVni, isEvenVni } from "../../sdk/mechanisms/vxlan.ts";
import { WIREGUARD } from "../../sdk/mechanisms/wireguard.ts";
import { formatPrefix } from "../../sdk/prefix.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";

/** A parameter whose value is JSON. */
interface Accessor {
  readonly get: (parameters: Readonly<Parameters>) => JsonValue;
  readonly set: (parameters: Parameters, value: unknown) => void;
}

/** The arguments in the file have the type of the setter; `null` is none. */
function accessor<T>(parameter: Parameter<T>, toJsonValue: (value: T) => JsonValue): Accessor {
  return {
    get: (parameters) => toJsonValue(getParameter(parameters, parameter)),
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    set: (parameters, value) => setParameter(parameters, parameter, (value ?? undefined) as T | undefined),
  };
}

const scalar = <T extends string | number | boolean>(parameter: Parameter<T>) =>
  accessor(parameter, (value) => value);
const address = (parameter: Parameter<string | undefined>) => accessor(parameter, (value) => value ?? null);
const rules = (parameter: Parameter<readonly string[] | undefined>) =>
  accessor(parameter, (value) => (value === undefined ? null : [...value]));
const computed = (get: Accessor["get"]): Accessor => ({
  get,
  set: () => {
    throw new Error("is computed");
  },
});

const keyed = (table: typeof WIREGUARD) => ({
  DstIP: address(table.dstIp),
  DstPort: scalar(table.dstPort),
  DstPublicKey: scalar(table.dstPublicKey),
  MTU: scalar(table.mtuBytes),
  SrcIP: address(table.srcIp),
  SrcPort: scalar(table.srcPort),
  SrcPublicKey: scalar(table.srcPublicKey),
});

/** By type and by the name in the recording, without `Get` and `Set`. */
const ACCESSORS: Readonly<Record<string, Readonly<Record<string, Accessor>>>> = {
  KERNEL: {
    DeviceTokenID: scalar(KERNEL.deviceTokenId),
    IPTables4NatTemplate: rules(KERNEL.natTemplate),
    InterfaceName: scalar(KERNEL.interfaceName),
    NetNSURL: scalar(KERNEL.netnsUrl),
    PCIAddress: scalar(KERNEL.pciAddress),
    RouteLocalNet: scalar(KERNEL.routeLocalNet),
    SupportsVLAN: scalar(KERNEL.supportsVlan),
    VLAN: scalar(KERNEL.vlan),
  },
  VXLAN: {
    DstIP: address(VXLAN.dstIp),
    DstPort: scalar(VXLAN.dstPort),
    EvenVNI: computed(isEvenVni),
    MTU: scalar(VXLAN.mtuBytes),
    SrcIP: address(VXLAN.srcIp),
    SrcPort: scalar(VXLAN.srcPort),
    VNI: scalar(VXLAN.vni),
  },
  WIREGUARD: keyed(WIREGUARD),
  IPSEC: keyed(IPSEC),
  MEMIF: {
    NetNSURL: scalar(MEMIF.netnsUrl),
    SocketFileURL: scalar(MEMIF.netnsUrl),
    SocketFilename: scalar(MEMIF.socketFile),
  },
  VFIO: {
    CgroupDir: scalar(VFIO.cgroupDir),
    DeviceMajor: scalar(VFIO.deviceMajor),
    DeviceMinor: scalar(VFIO.deviceMinor),
    DeviceTokenID: scalar(VFIO.deviceTokenId),
    IommuGroup: scalar(VFIO.iommuGroup),
    PCIAddress: scalar(VFIO.pciAddress),
    VfioMajor: scalar(VFIO.vfioMajor),
    VfioMinor: scalar(VFIO.vfioMinor),
  },
  VLAN: { VlanID: scalar(VLAN.vlanId) },
};

function accessorOf(type: string, name: string): Accessor {
  const found = ACCESSORS[type]?.[name] ?? ACCESSORS[type]?.[name.replace(/^[GS]et/, "")];
  if (found === undefined) throw new Error(`no accessor ${name} of ${type}`);
  return found;
}

interface GetCase {
  readonly type: string;
  readonly parameters: Parameters | null;
  readonly values: Readonly<Record<string, JsonValue>>;
}

interface SetCase {
  readonly type: string;
  readonly setter: string;
  readonly argument: JsonValue;
  readonly parameters: Parameters | null;
  readonly after?: Parameters;
  readonly crash?: true;
}

function checkSet({ type, setter, argument, parameters, after }: SetCase): void {
  const ours = { ...parameters };
  accessorOf(type, setter).set(ours, argument);
  same("after", ours, after);
}

interface NameCase {
  readonly service: string;
  readonly fixedPartBytes: string;
  readonly length: number;
  readonly randomLength: number;
}

function checkName({ service, fixedPartBytes, length, randomLength }: NameCase): void {
  const name = generateInterfaceName(service);
  same("length", name.length, length);
  same("fixed part", name.slice(0, length - randomLength), Buffer.from(fixedPartBytes, "base64").toString());
  same("allowed", isInterfaceName(name), true);
}

interface KernelCase {
  readonly generatedName: string;
  readonly request: JsonValue;
  readonly forwarded?: JsonValue;
  readonly forwardedNotUtf8?: true;
  /** The configured name, where it cannot be read from `forwarded`. */
  readonly nameBytes?: string;
}

/** The configured name is not a member of its own: it is the one in the result that neither the request nor the generator had. */
function configuredName({ generatedName, request, forwarded, nameBytes }: KernelCase): string {
  if (nameBytes !== undefined) return Buffer.from(nameBytes, "base64").toString("latin1");
  const namesIn = (json: JsonValue | undefined) =>
    [...JSON.stringify(json ?? null).matchAll(/"parameters":\{[^}]*"name":"([^"]*)"/g)].map(
      ([, name = ""]) => name,
    );
  return namesIn(forwarded).find((name) => !namesIn(request).includes(name)) ?? generatedName;
}

const kernelKind = (run: (request: NetworkServiceRequest, end: KernelEnd) => void) =>
  vectorKind(async (vector: KernelCase) => {
    const request = fromJson(NetworkServiceRequestSchema, vector.request);
    const ours = await outcomeOf(() => {
      const interfaceName = checkInterfaceName(configuredName(vector));
      run(request, { interfaceName, netnsUrl: "file:///proc/thread-self/ns/net" });
      return toJson(NetworkServiceRequestSchema, request);
    });
    const forwarded = sameError(ours, vector.forwardedNotUtf8);
    if (forwarded === undefined) return;
    const recorded = fromJson(NetworkServiceRequestSchema, vector.forwarded ?? null);
    same("forwarded", forwarded, toJson(NetworkServiceRequestSchema, recorded));
  });

interface VniCase {
  readonly parameters: Parameters;
  readonly tunnelIp: string;
  readonly even?: boolean;
  readonly vniKept?: boolean;
  readonly sameOnRefresh?: boolean;
  readonly otherParameters?: Parameters;
  readonly error?: string;
}

async function checkVni(vector: VniCase): Promise<void> {
  const parameters = { ...vector.parameters };
  const serve = () => {
    setParameter(parameters, VXLAN.dstIp, vector.tunnelIp);
    setParameter(parameters, VXLAN.dstPort, 4789);
    const vni = chooseVni(parameters, () => false, Math.random);
    setParameter(parameters, VXLAN.vni, vni);
    return vni;
  };
  const vni = sameError(await outcomeOf(serve), vector.error === undefined ? undefined : true);
  if (vni === undefined) return;
  same("even", vni % 2 === 0, vector.even);
  same("kept", vector.parameters["vni"] === String(vni), vector.vniKept);
  same("same on refresh", serve() === vni, vector.sameOnRefresh);
  const { vni: _, ...others } = parameters;
  same("others", others, vector.otherParameters);
}

interface ContextCase {
  readonly ipContext: JsonValue;
  readonly srcNets: readonly string[];
  readonly dstNets: readonly string[];
  readonly srcIpRoutes: JsonValue;
  readonly dstIpRoutes: JsonValue;
  readonly srcRoutesWithNextHop: JsonValue;
  readonly dstRoutesWithNextHop: JsonValue;
}

function checkContext(vector: ContextCase): void {
  const context = fromJson(IPContextSchema, vector.ipContext);
  const json = (routes: readonly Route[]) => routes.map((route) => toJson(RouteSchema, route));
  same("srcNets", addressesOf(context, "src").map(formatPrefix), vector.srcNets);
  same("dstNets", addressesOf(context, "dst").map(formatPrefix), vector.dstNets);
  same("srcIpRoutes", json(routesToPeer(context, "src")), vector.srcIpRoutes);
  same("dstIpRoutes", json(routesToPeer(context, "dst")), vector.dstIpRoutes);
  same("srcRoutesWithNextHop", json(routesWithNextHop(context, "src")), vector.srcRoutesWithNextHop);
  same("dstRoutesWithNextHop", json(routesWithNextHop(context, "dst")), vector.dstRoutesWithNextHop);
}

describeVectors("mechanisms.json", {
  get: vectorKind(({ type, parameters, values }: GetCase) => {
    for (const [name, value] of Object.entries(values))
      same(name, accessorOf(type, name).get(parameters ?? {}), value);
  }),
  set: vectorKind(checkSet, [
    { record: "D4", differs: ({ crash }: SetCase) => crash === true },
    { record: "D4", differs: ({ after, argument }) => argument === null && after !== undefined },
  ]),
  "interface-name": vectorKind(checkName, [
    {
      record: "D5",
      differs: ({ fixedPartBytes }: NameCase) =>
        !/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(Buffer.from(fixedPartBytes, "base64").toString("latin1")),
    },
  ]),
  "kernel-client": kernelKind(offerKernel),
  "kernel-server": kernelKind((request, end) => answerKernel(request.connection?.mechanism, end)),
  "vni-server": vectorKind(checkVni),
  "nat-template": vectorKind(
    async (vector: {
      readonly template: string | null;
      readonly interface: string;
      readonly ipContext?: JsonValue;
      readonly rules?: readonly string[];
      readonly error?: true;
    }) => {
      const context =
        vector.ipContext === undefined ? undefined : fromJson(IPContextSchema, vector.ipContext);
      const ours = await outcomeOf(() => natRules(vector.template ?? undefined, vector.interface, context));
      const found = sameError(ours, vector.error);
      if (found !== undefined) same("rules", found, vector.rules);
    },
  ),
  "ip-context": vectorKind(checkContext),
  "port-range": vectorKind(
    async (vector: { readonly text: string; readonly result?: string | null; readonly error?: true }) => {
      const ours = await outcomeOf(() => ({ range: parsePortRange(vector.text) }));
      const found = sameError(ours, vector.error);
      if (found === undefined) return;
      const { range } = found;
      same("range", range === undefined ? null : `${range.from}-${range.to}`, vector.result);
    },
  ),
  "extra-prefix-request": vectorKind((vector: { readonly request: JsonValue; readonly valid: boolean }) =>
    same("valid", isExtraPrefixRequest(fromJson(ExtraPrefixRequestSchema, vector.request)), vector.valid),
  ),
});
