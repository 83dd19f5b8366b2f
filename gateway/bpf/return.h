/* SPDX-License-Identifier: GPL-2.0 */
/* What backends answer by way of a gateway. */
#ifndef RAZOR_RETURN_H
#define RAZOR_RETURN_H

#include "miss.h"

/* is_answer tells whether a packet is from a VIP of ours to a client: a gateway sends
 * nothing else for others, and nothing to SIDs.
 */
static __always_inline int is_answer(const struct host *h, const struct packet *p)
{
	int six = p->family == AF_INET6;

	if (p->routing || (six && (is_mapped(&p->source) || in_domain(&h->domain, &p->destination))))
		return 0;
	return find_vip(h, &p->source, 0, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 1) != NULL;
}

/* trace_answer notes the flow of an answer. */
static __always_inline void trace_answer(const struct packet *p)
{
	struct embedded e = {
		.client = p->destination,
		.vip = p->source,
		.port = p->source_port,
		.client_port = p->destination_port,
		.protocol = p->protocol,
	};

	trace_flow(&e, p);
}

/* balancer_return is End.DT46 (RFC 8986 §4.8) with the kernel's table, for a packet that
 * was opened.
 */
SEC("xdp.frags")
int balancer_return(struct xdp_md *ctx)
{
	struct scratch *own = scratch_of_cpu();
	struct packet inner = {};
	struct host *h = this_host();

	if (!h || !own || decapsulate(ctx, &own->outer, &inner))
		return count(DROPPED_MALFORMED, XDP_DROP);
	trace_answer(&inner);
	if (!is_answer(h, &inner))
		return count(DROPPED_RELAY, XDP_DROP);
	if (inner.hops <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	/* That is where decapsulate has put it. */
	if (merge_ecn((void *)(long)ctx->data + sizeof(struct ethhdr), (void *)(long)ctx->data_end,
		      inner.family, own->packet.class, inner.class))
		return count(DROPPED_CONGESTED, XDP_DROP);
	return count(RETURNED, XDP_PASS);
}

#endif
