/** Network service URLs, their lists and groups, and the addresses of servers as recorded. */
import { toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import { dialTarget, publicUrl, targetToAddress } from "../../sdk/address.ts";
import { parseAwarenessGroups, parseNsUrl, parseNsUrlList } from "../../sdk/ns-url.ts";
import type { NsUrl } from "../../sdk/ns-url.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";

interface Wish {
  readonly networkService: string;
  readonly mechanism: JsonValue;
  readonly labels: JsonValue;
}

interface UrlCase extends Wish {
  readonly input: string;
  readonly error?: true;
  /** The value cannot be sent in a message: we refuse such a URL. */
  readonly mechanismNotUtf8?: true;
  readonly labelsNotUtf8?: true;
}

interface ListCase<Result> {
  readonly input: string;
  /** A text, or only the fact. */
  readonly error?: string | true;
  readonly result?: Result;
}

const wishOf = ({ networkService, mechanism, labels }: NsUrl): Wish => ({
  networkService,
  mechanism: toJson(MechanismSchema, mechanism),
  labels: { ...labels },
});

const failed = (error: string | true | undefined) => (error === undefined ? undefined : true);

describeVectors("ns-url.json", {
  url: vectorKind(async (vector: UrlCase) => {
    const { input, error, mechanismNotUtf8, labelsNotUtf8, networkService, mechanism, labels } = vector;
    const refused = error ?? mechanismNotUtf8 ?? labelsNotUtf8;
    const url = sameError(await outcomeOf(() => parseNsUrl(input)), refused);
    if (url !== undefined) same("url", wishOf(url), { networkService, mechanism, labels });
  }),
  list: vectorKind(async (vector: ListCase<readonly Wish[]>) => {
    const list = sameError(await outcomeOf(() => parseNsUrlList(vector.input)), failed(vector.error));
    if (list !== undefined) same("list", list.map(wishOf), vector.result);
  }),
  "awareness-groups": vectorKind(async (vector: ListCase<readonly (readonly Wish[])[]>) => {
    const groups = sameError(await outcomeOf(() => parseAwarenessGroups(vector.input)), failed(vector.error));
    if (groups === undefined) return;
    same(
      "groups",
      groups.map((group) => group.map(wishOf)),
      vector.result,
    );
  }),
  "dial-target": vectorKind((vector: { readonly url: string; readonly target: string }) =>
    same("target", dialTarget(vector.url), vector.target),
  ),
  "target-to-address": vectorKind(
    ({ target, network, address, url }: Readonly<Record<"target" | "network" | "address" | "url", string>>) =>
      same("address", targetToAddress(target), { network, address, url }),
  ),
  "public-url": vectorKind(
    (vector: { readonly listenOn: string; readonly addresses: readonly string[]; readonly result: string }) =>
      same("url", publicUrl(vector.listenOn, vector.addresses), vector.result),
  ),
});
