/* SPDX-License-Identifier: GPL-2.0 */
/* Packet Too Big (RFC 4443 §3.2) and "fragmentation needed and DF set" (RFC 792,
 * RFC 1191 §4) for what does not fit once it is encapsulated. Who sends packets that
 * may be fragmented is told as well: nobody here could cut them, and most hosts obey.
 */
#ifndef RAZOR_TOOBIG_H
#define RAZOR_TOOBIG_H

#include "limit.h"
#include "send.h"

#define QUOTE 128 /* bytes of the packet that the error carries */

/* sum_of is the sum of a multiple of 4 bytes, at most 512. */
static __always_inline __u64 sum_of(void *from, __u32 bytes, __u32 seed)
{
	return (__u64)(__s64)bpf_csum_diff(NULL, 0, from, bytes, seed);
}

/* make_room cuts a frame to the quote, makes room for the headers of the error and
 * puts the Ethernet header in front, the other way round.
 */
static __always_inline int make_room(struct xdp_md *ctx, __u32 l3, int headers)
{
	int rest = (int)bpf_xdp_get_buff_len(ctx) - (int)(l3 + QUOTE);
	void *data, *end, *was;
	struct ethhdr *eth;
	__u8 mac[ETH_ALEN];

	if (rest < 0 || bpf_xdp_adjust_tail(ctx, -rest) || bpf_xdp_adjust_head(ctx, -headers))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	was = data + headers;
	if (was + sizeof(*eth) + VLAN_HEADER > end)
		return -1;
	__builtin_memcpy(data, was, sizeof(*eth));
	if (l3 > sizeof(*eth))
		__builtin_memcpy(data + sizeof(*eth), was + sizeof(*eth), VLAN_HEADER);
	eth = data;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return 0;
}

static __always_inline int tell_ipv6(struct xdp_md *ctx, struct packet *p, __u32 mtu)
{
	void *data, *end;
	struct ipv6hdr *ip;
	struct icmp_header *icmp;
	__be32 pseudo[2] = {bpf_htonl(sizeof(*icmp) + QUOTE), bpf_htonl(IPPROTO_ICMPV6)};
	__u64 sum;

	if (make_room(ctx, p->l3, sizeof(*ip) + sizeof(*icmp)))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + within(p->l3);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) + QUOTE > end)
		return -1;
	*(__be32 *)ip = bpf_htonl(6u << 28);
	ip->payload_len = bpf_htons(sizeof(*icmp) + QUOTE);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = OUTER_HOPS;
	__builtin_memcpy(&ip->saddr, &p->destination, 16);
	__builtin_memcpy(&ip->daddr, &p->source, 16);
	icmp->type = ICMPV6_TOO_BIG;
	icmp->code = 0;
	icmp->checksum = 0;
	icmp->rest = bpf_htonl(mtu);
	sum = sum_of(&p->source, 16, 0);
	sum = sum_of(&p->destination, 16, sum);
	sum = sum_of(pseudo, sizeof(pseudo), sum);
	sum = sum_of(icmp, sizeof(*icmp) + QUOTE, sum);
	icmp->checksum = ~csum_fold(sum);
	return 0;
}

static __always_inline int tell_ipv4(struct xdp_md *ctx, struct packet *p, __u32 mtu)
{
	void *data, *end;
	struct iphdr *ip;
	struct icmp_header *icmp;

	if (make_room(ctx, p->l3, sizeof(*ip) + sizeof(*icmp)))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + within(p->l3);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) + QUOTE > end)
		return -1;
	__builtin_memset(ip, 0, sizeof(*ip) + sizeof(*icmp));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*icmp) + QUOTE);
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = OUTER_HOPS;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = p->destination.words[3];
	ip->daddr = p->source.words[3];
	ip->check = ~csum_fold(sum_of(ip, sizeof(*ip), 0));
	icmp->type = ICMP_UNREACHABLE;
	icmp->code = ICMP_FRAGMENTATION_NEEDED;
	icmp->rest = bpf_htonl(mtu);
	icmp->checksum = ~csum_fold(sum_of(icmp, sizeof(*icmp) + QUOTE, 0));
	return 0;
}

/* unanswerable tells whether no error may be sent about a packet: an ICMP error, or a
 * fragment that is not the first (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)). What came here
 * was steered, and so ICMP is no echo.
 */
static __always_inline int unanswerable(const struct packet *p)
{
	return p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6 ||
	       (p->family == AF_INET && p->fragment == LATER_FRAGMENT);
}

SEC("xdp.frags")
int balancer_toobig(struct xdp_md *ctx)
{
	struct scratch *s = scratch_of_cpu();
	struct packet p = {};
	__u32 mtu;

	if (!s || parse(ctx, &p) != PARSED || unanswerable(&p) || !within_limit(&s->told))
		return count(DROPPED_TOO_BIG, XDP_DROP);
	/* The longest list has to fit as well, so that the client is told once. */
	mtu = s->mtu > MIN_MTU + MAX_OVERHEAD ? s->mtu - MAX_OVERHEAD : MIN_MTU;
	if (p.family == AF_INET6 ? tell_ipv6(ctx, &p, mtu) : tell_ipv4(ctx, &p, mtu))
		return count(DROPPED_ROOM, XDP_DROP);
	return count(ANSWERED_TOO_BIG, XDP_TX);
}

#endif
