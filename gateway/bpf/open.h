/* SPDX-License-Identifier: GPL-2.0 */
/* Packets to the SIDs of this gateway: of backends and of other sites' gateways. */
#ifndef RAZOR_OPEN_H
#define RAZOR_OPEN_H

#include "list.h"

/* balancer_open opens a packet to a SID of this gateway that is whole: the last of its
 * list, and nothing wrong with it.
 */
SEC("xdp.frags")
int balancer_open(struct xdp_md *ctx)
{
	struct scratch *own = scratch_of_cpu();
	struct packet p = {};
	struct outer o = {};

	if (!own || parse(ctx, &p) == NOT_IP ||
	    parse_outer(&o, p.l3, (void *)(long)ctx->data, (void *)(long)ctx->data_end) || o.left)
		return count(DROPPED_MALFORMED, XDP_DROP);
	own->packet = p;
	own->outer = o;
	switch (bpf_ntohs(((union sid *)&p.destination)->behaviour)) {
	case SID_MISS:
		bpf_tail_call(ctx, &steps, STEP_MISS);
		break;
	case SID_ENTRY:
		bpf_tail_call(ctx, &steps, STEP_ENTRY);
		break;
	case SID_RETURN:
		bpf_tail_call(ctx, &steps, STEP_RETURN);
		break;
	}
	return count(DROPPED_STRAY, XDP_DROP);
}

#endif
