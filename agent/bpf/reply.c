// SPDX-License-Identifier: GPL-2.0
/* What a backend answers from its VIPs, on its way out: clients are told of segments
 * that fit through the fabric once gateways have encapsulated them.
 */
#include "reply.h"
#include "mss.h"

#define HEADERS 128 /* that are looked at */

char LICENSE[] SEC("license") = "GPL";

const enum reason *unused_reason __attribute__((unused));

/* read_packet reads a frame, of which the first piece may be short. */
static __always_inline enum parsed read_packet(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	barrier_var(p);
	if (data + HEADERS > end) {
		if (bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS))
			return NOT_IP;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		eth = data;
	}
	if ((void *)(eth + 1) > end)
		return NOT_IP;
	p->l3 = sizeof(*eth);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(NULL, p, data, end, skb->len - sizeof(*eth));
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return parse_ipv4(NULL, p, data, end, skb->len - sizeof(*eth));
	return NOT_IP;
}

/* clamp has a SYN tell of no larger segment. */
static __always_inline void clamp(struct __sk_buff *skb, const struct packet *p, __u16 most)
{
	__u8 options[OPTIONS_ROOM] = {}, offset = 0;
	__be16 value = bpf_htons(most);
	struct mss m;
	__u32 length;

	if (!most || bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
		return;
	length = (offset >> 4) * 4 - TCP_OPTIONS;
	barrier_var(length);
	if (length - 1 >= MOST_OPTIONS || bpf_skb_load_bytes(skb, p->l4 + TCP_OPTIONS, options, length))
		return;
	m = find_mss(options, length);
	if (!m.at || bpf_ntohs(m.value) <= most)
		return;
	if (bpf_skb_store_bytes(skb, p->l4 + TCP_OPTIONS + m.at, &value, sizeof(value), 0))
		return;
	bpf_l4_csum_replace(skb, p->l4 + __builtin_offsetof(struct tcphdr, check), in_sum(&m, m.value),
			    in_sum(&m, value), sizeof(value));
	count(CLAMPED);
}

SEC("tcx/egress")
int reply(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct setting *s = bpf_map_lookup_elem(&settings, &zero);
	struct packet p = {};

	if (!s || read_packet(skb, &p) != PARSED || !bpf_map_lookup_elem(&vips, &p.source))
		return TC_ACT_UNSPEC;
	if (p.protocol == IPPROTO_TCP && p.fragment == WHOLE && p.flags & TCP_SYN)
		clamp(skb, &p, p.family == AF_INET6 ? s->mss6 : s->mss4);
	return TC_ACT_UNSPEC;
}
