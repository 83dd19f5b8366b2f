/* SPDX-License-Identifier: GPL-2.0 */
/* A router of the fabric says that a packet of ours was too big for it: user space is
 * told, which knows the keys of services and so whether we sent that packet.
 */
#ifndef RAZOR_PATH_H
#define RAZOR_PATH_H

#include "limit.h"
#include "steer.h"
#include "include/slots.h"

/* about_ours tells whether an ICMP error quotes a packet whose source is whom the error
 * was sent to, and the MTU is one that there is (RFC 8201 §4).
 */
static __always_inline int about_ours(const struct packet *p, void *data, void *end)
{
	struct icmp_header *icmp = data + within(p->l4);
	struct ipv6hdr *ip = (void *)(icmp + 1);
	union address source;

	if ((void *)(ip + 1) > end || ip->version != 6 || bpf_ntohl(icmp->rest) < MIN_MTU)
		return 0;
	copy_address(&source, &ip->saddr);
	return source.halves[0] == p->destination.halves[0] && source.halves[1] == p->destination.halves[1];
}

/* hand_up tells user space. It returns -1 where nobody reads, or the quote is shorter than
 * any router's of a packet that was too big.
 */
static __always_inline int hand_up(struct xdp_md *ctx, const struct packet *p, __be32 mtu)
{
	struct smaller *s = bpf_ringbuf_reserve(&smaller_paths, sizeof(*s), 0);

	if (!s)
		return -1;
	s->mtu = bpf_ntohl(mtu);
	if (bpf_xdp_load_bytes(ctx, p->l4 + sizeof(struct icmp_header), s->quote, sizeof(s->quote))) {
		bpf_ringbuf_discard(s, 0);
		return -1;
	}
	bpf_ringbuf_submit(s, 0);
	return 0;
}

/* hear_smaller has user space hear of a Packet Too Big. */
static __always_inline int hear_smaller(struct xdp_md *ctx, const struct packet *p, struct scratch *own)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp_header *icmp = data + within(p->l4);

	if (!about_ours(p, data, end) || (void *)(icmp + 1) > end)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (!within_limit(&own->smaller) || hand_up(ctx, p, icmp->rest))
		return count(DROPPED_SMALLER, XDP_DROP);
	return count(HEARD_SMALLER, XDP_DROP);
}

/* balancer_path is for ICMP to the source of what we send: a Packet Too Big (RFC 4443
 * §3.2) is for user space, from wherever its router has its address. All else is the
 * kernel's, if it comes from the SR domain.
 */
SEC("xdp.frags")
int balancer_path(struct xdp_md *ctx)
{
	struct scratch *own = scratch_of_cpu();
	struct packet p = {};
	struct host *h = this_host();
	enum parsed parsed = parse(ctx, &p);

	if (!h || !own)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (parsed == PARSED && !p.routing && !p.fragment && p.type == ICMPV6_TOO_BIG)
		return hear_smaller(ctx, &p, own);
	if (!in_domain(&h->domain, &p.source))
		return count(DROPPED_OUTSIDER, XDP_DROP);
	return next_slot(ctx, SLOT_BALANCER);
}

#endif
