/* SPDX-License-Identifier: GPL-2.0 */
/* H.Encaps and H.Encaps.Red (RFC 8986 §5.1, §5.2), and the way out. */
#ifndef RAZOR_ENCAPSULATE_H
#define RAZOR_ENCAPSULATE_H

#include "maps.h"
#include "include/csum.h"

#define OUTER_HOPS 64 /* RFC 2473 §6.3 leaves it to us; the inner one is used up as in a router */

/* segments is a list of SIDs in the order of the path. */
struct segments {
	union sid list[MAX_SEGMENTS];
};

static __always_inline __u32 overhead(__u32 segments)
{
	return segments == 1 ? 40 : 40 + 8 + 16 * segments;
}

/* hop_taken lowers the hop limit of a packet as a router does. The caller has seen
 * that it is above 1. It returns -1 where the header is not within reach.
 */
static __always_inline int hop_taken(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l3 = data + within(p->l3);

	if (p->family == AF_INET6) {
		struct ipv6hdr *ip = l3;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = l3;
		__u16 *word;

		if ((void *)(ip + 1) > end)
			return -1;
		word = (__u16 *)&ip->ttl;
		ip->check = csum_replace(ip->check, *word, *word - 1);
		ip->ttl--;
	}
	return 0;
}

/* leave sends a frame that has an Ethernet header to its next hop. */
static __always_inline int leave(struct xdp_md *ctx, const struct hop *hop)
{
	if (hop->vlan) {
		void *data, *end;
		struct vlan_header *tag;
		struct ethhdr *eth;

		if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*tag)))
			return count(DROPPED_ROOM, XDP_DROP);
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		eth = data;
		tag = (void *)(eth + 1);
		if ((void *)(tag + 1) > end)
			return count(DROPPED_ROOM, XDP_DROP);
		__builtin_memmove(eth, data + sizeof(*tag), 2 * ETH_ALEN);
		eth->h_proto = bpf_htons(ETH_P_8021Q);
		tag->tci = bpf_htons(hop->vlan);
		tag->protocol = bpf_htons(ETH_P_IPV6);
	}
	if (hop->ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(hop->ifindex, 0);
}

/* copy_macs copies the two addresses of a hop into an Ethernet header, by words. */
static __always_inline void copy_macs(void *eth, const struct hop *hop)
{
	typedef __u32 __attribute__((may_alias)) word;
	const word *from = (const void *)hop;
	word *to = eth;

	_Static_assert(__builtin_offsetof(struct hop, source) == ETH_ALEN, "hop.source");
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

/* source_of is the outer source of a packet: who it comes from, which round a miss of
 * it begins, and what spreads it over the receive queues of a backend.
 */
static __always_inline union address source_of(const struct host *h, __u64 hash, __u8 round)
{
	union address source = h->source.address;

	source.halves[1] |= (__u64)round << 32 | hash >> 20 << 40; /* the entropy is 24 bits of it */
	return source;
}

/* encapsulate puts n segments before a packet and sends it to the first of them.
 * n is a constant where this is inlined: then there is no loop.
 */
static __always_inline int encapsulate(struct xdp_md *ctx, const struct packet *p,
				       const union address *source, __u64 hash,
				       const struct segments *list, __u32 n, const struct hop *hop)
{
	__u32 added = overhead(n);
	void *data, *end;
	struct ethhdr *eth;
	struct ipv6hdr *ip;

	if (!hop->ifindex)
		return count(DROPPED_NEIGHBOUR, XDP_DROP);
	if (hop_taken(ctx, p) || bpf_xdp_adjust_head(ctx, (int)(p->l3 - sizeof(*eth)) - (int)added))
		return count(DROPPED_ROOM, XDP_DROP);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	ip = (void *)(eth + 1);
	if ((void *)ip + added > end)
		return count(DROPPED_ROOM, XDP_DROP);
	copy_macs(eth, hop);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	*(__be32 *)ip = bpf_htonl(6u << 28 | (__u32)p->class << 20 | flow_label(hash));
	ip->payload_len = bpf_htons(p->length + added - sizeof(*ip));
	ip->nexthdr = p->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	ip->hop_limit = OUTER_HOPS;
	copy_address(&ip->saddr, source);
	copy_address(&ip->daddr, &list->list[0]);
	if (n > 1) {
		struct srh *srh = (void *)(ip + 1);
		union sid *entry = (void *)(srh + 1);

		srh->next = ip->nexthdr;
		ip->nexthdr = IPPROTO_ROUTING;
		srh->length = 2 * n;
		srh->type = IPV6_ROUTING_TYPE_SR;
		srh->left = srh->last = n - 1;
		srh->flags = 0;
		srh->tag = 0;
#pragma unroll
		for (__u32 i = 0; i < MAX_SEGMENTS; i++) {
			if (i >= n)
				break;
			copy_address(entry + i, &list->list[(n - 1 - i) % MAX_SEGMENTS]);
		}
	}
	count(SENT, 0);
	return leave(ctx, hop);
}

#endif
