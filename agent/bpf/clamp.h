/* SPDX-License-Identifier: GPL-2.0 */
/* What a target may send in a segment, where its answers get an outer header. */
#ifndef RAZOR_CLAMP_H
#define RAZOR_CLAMP_H

#include "csum.h"
#include "maps.h"
#include "mss.h"

/* lower_mss has a client's SYN, whose header is between two offsets, tell of no larger
 * segment than most. It is no part of the program but a function of its own: so the
 * verifier goes through the options once, and not for every way that leads here.
 */
__noinline int lower_mss(struct xdp_md *ctx, __u32 l4, __u32 end, __u32 most)
{
	__u32 check_at = l4 + __builtin_offsetof(struct tcphdr, check), length;
	struct search options = {};
	__u8 offset = 0;
	__be16 value = bpf_htons(most);
	__u16 check;
	struct mss m;

	if (bpf_xdp_load_bytes(ctx, l4 + 12, &offset, 1))
		return 0;
	length = (offset >> 4) * 4 - TCP_OPTIONS;
	barrier_var(length);
	if (length - 1 >= MOST_OPTIONS || l4 + TCP_OPTIONS + length > end ||
	    bpf_xdp_load_bytes(ctx, l4 + TCP_OPTIONS, options.options, length))
		return 0;
	m = find_mss(&options, length);
	if (!m.at || bpf_ntohs(m.value) <= most || bpf_xdp_load_bytes(ctx, check_at, &check, sizeof(check)))
		return 0;
	check = csum_replace(check, in_sum(&m, m.value), in_sum(&m, value));
	if (!bpf_xdp_store_bytes(ctx, l4 + TCP_OPTIONS + m.at, &value, sizeof(value)))
		bpf_xdp_store_bytes(ctx, check_at, &check, sizeof(check));
	return 0;
}

/* clamp has a client's SYN tell of no larger segment than fits into a packet. */
static __always_inline void clamp(struct xdp_md *ctx, const struct packet *p, __u32 packet)
{
	__u32 headers = sizeof(struct tcphdr) +
			(p->family == AF_INET6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	if (p->protocol == IPPROTO_TCP && p->fragment == WHOLE && p->flags & TCP_SYN && packet > headers)
		lower_mss(ctx, p->l4, p->l3 + p->length, packet - headers);
}

#endif
