/* SPDX-License-Identifier: GPL-2.0 */
/* What a SID has done to a packet: one function for each behaviour. */
#ifndef RAZOR_BEHAVIOURS_H
#define RAZOR_BEHAVIOURS_H

#include "ecn.h"
#include "maps.h"
#include "slots.h"

/* macs are both addresses of an Ethernet header. By bytes they would take longer than the
 * rest of the header.
 */
struct macs {
	__u64 low;
	__u32 high;
} __attribute__((packed, aligned(4), may_alias));
_Static_assert(sizeof(struct macs) == 2 * ETH_ALEN, "macs");

static __always_inline void swap_macs(void *eth)
{
	struct macs *m = eth, was = *m;

	m->low = was.low >> 48 | (__u64)was.high << 16 | was.low << 48;
	m->high = was.low >> 16;
}

/* send_back sends a packet, whose destination is new, to the router that it came from.
 * A backend has one way out: that router knows all locators, and no table needs to be
 * asked. What is for another SID of this very host stays here: it begins anew, with one
 * segment or hop less, and the kernel bounds tail calls too.
 */
static __always_inline int send_back(struct xdp_md *ctx, const struct domain *d,
				     const union address *to)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (to->halves[0] == d->locator)
		bpf_tail_call(ctx, &slots, SLOT_ENDPOINT);
	if (data + sizeof(struct ethhdr) > end)
		return XDP_DROP;
	swap_macs(data);
	return XDP_TX;
}

/* end is End (RFC 8986 §4.1): the packet goes on to the next segment. The ICMP errors
 * of the RFC are not sent: they would tell a gateway, which has nothing to do with them.
 */
static __always_inline int end_(struct xdp_md *ctx, const struct domain *d, const struct outer *o,
				struct handled *h)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 left = (o->left - 1) & 7;
	struct ipv6hdr *ip = data + (o->l3 & 0x1f);
	struct srh *srh = data + (o->srh & 0x7f);
	union address *next = (union address *)(srh + 1) + left, to;

	barrier_var(next); /* the pointer that is checked is the one that is used */
	if ((void *)(ip + 1) > end || (void *)(srh + 1) > end || (void *)(next + 1) > end)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (ip->hop_limit <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	to = *next;
	if (!in_domain(d, &to))
		return count(DROPPED_SEGMENTS, XDP_DROP);
	ip->hop_limit--;
	srh->left = left;
	copy_address(&ip->daddr, &to);
	h->handed_on++;
	count(HANDED_ON, 0);
	return send_back(ctx, d, &to);
}

/* bounce sends a packet that nobody in its list owned back to the gateway that it came
 * from, as a miss. Round and entropy of the gateway's source are in the SID's argument.
 */
static __always_inline int bounce(struct xdp_md *ctx, const struct domain *d,
				  const struct packet *p, struct handled *h)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + (p->l3 & 0x1f);
	union sid to;

	if ((void *)(ip + 1) > end)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (ip->hop_limit <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	to.address = p->source;
	to.behaviour = bpf_htons(SID_MISS);
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, &p->destination, sizeof(p->destination));
	__builtin_memcpy(&ip->daddr, &to, sizeof(to));
	h->bounced++;
	count(BOUNCED, 0);
	return send_back(ctx, d, &to.address);
}

/* end_dt46 is End.DT46 (RFC 8986 §4.8) with the addresses of the target as its table:
 * the packet inside is the target's. The VLAN tag goes with the outer headers, as the
 * VIPs are on no VLAN.
 */
static __always_inline int end_dt46(struct xdp_md *ctx, const struct packet *outer,
				    const struct packet *inner, const struct target *t,
				    struct handled *h, __u32 reason)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = inner->l3 & OFFSET_MASK;
	struct ethhdr *eth = data;
	struct macs macs;

	if (merge_ecn(data + at, end, inner->family, outer->class, inner->class))
		return count(DROPPED_CONGESTED, XDP_DROP);
	if ((void *)(eth + 1) > end)
		return count(DROPPED_ROOM, XDP_DROP);
	macs = t->ifindex ? *(const struct macs *)t->destination : *(const struct macs *)eth;
	if (bpf_xdp_adjust_head(ctx, at - sizeof(*eth)))
		return count(DROPPED_ROOM, XDP_DROP);
	eth = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(eth + 1) > end)
		return count(DROPPED_ROOM, XDP_DROP);
	*(struct macs *)eth = macs;
	eth->h_proto = inner->family == AF_INET6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	h->taken++;
	count(reason, 0);
	return t->ifindex ? bpf_redirect(t->ifindex, 0) : XDP_PASS;
}

#endif
