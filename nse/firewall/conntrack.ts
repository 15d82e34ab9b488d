/** Messages of connection tracking (linux/netfilter/nfnetlink_conntrack.h). Pure. */
import type { Request } from "../../sdk/netlink/message.ts";

const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_DELETE = 2;

/** Forgets all flows of the namespace: the next packet of each is judged by the rules of now. */
export const FLUSH_FLOWS: Request = {
  doing: "flush tracked flows",
  type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
  flags: 0,
  // struct nfgenmsg: any family
  body: Buffer.alloc(4),
};
