/** The certificate library, for those who issue certificates; the only importer, because its container wants a polyfill first. */
// oxlint-disable-next-line import/no-unassigned-import -- it patches Reflect, there is nothing to assign
import "reflect-metadata";
export * as x509 from "@peculiar/x509";
