// SPDX-License-Identifier: GPL-2.0
/* What a backend answers from its VIPs, on its way out: clients are told of segments
 * that fit through the fabric once gateways have encapsulated them, and replies go by
 * gateways where they are to.
 */
#include "reply.h"
#include "flow.h"
#include "mss.h"

#define HEADERS 128 /* that are looked at */

#define OUTER_HOPS 64

/* Neighbour Discovery (RFC 4861 §4) ends on the link. */
#define ICMPV6_DISCOVERY_FIRST 133
#define ICMPV6_DISCOVERY_LAST 137

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
	struct search options = {};
	__u8 offset = 0;
	__be16 value = bpf_htons(most);
	struct mss m;
	__u32 length;

	if (!most || bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
		return;
	length = (offset >> 4) * 4 - TCP_OPTIONS;
	barrier_var(length);
	if (length - 1 >= MOST_OPTIONS || p->l4 + TCP_OPTIONS + length > p->l3 + p->length ||
	    bpf_skb_load_bytes(skb, p->l4 + TCP_OPTIONS, options.options, length))
		return;
	m = find_mss(&options, length);
	if (!m.at || bpf_ntohs(m.value) <= most)
		return;
	if (bpf_skb_store_bytes(skb, p->l4 + TCP_OPTIONS + m.at, &value, sizeof(value), 0))
		return;
	bpf_l4_csum_replace(skb, p->l4 + __builtin_offsetof(struct tcphdr, check), in_sum(&m, m.value),
			    in_sum(&m, value), sizeof(value));
	count(CLAMPED, 0);
}

/* leaves_directly tells whether a packet goes to no client. */
static __always_inline int leaves_directly(const struct setting *s, const struct packet *p)
{
	if (p->family != AF_INET6)
		return 0;
	return in_domain(&s->domain, &p->destination) ||
	       (p->protocol == IPPROTO_ICMPV6 && p->fragment == WHOLE &&
		p->type >= ICMPV6_DISCOVERY_FIRST && p->type <= ICMPV6_DISCOVERY_LAST);
}

/* hash_of is the same for all packets of a flow, and for all pieces of one. */
static __always_inline __u64 hash_of(const struct packet *p)
{
	struct flow f = {.address = {p->destination.halves[0], p->destination.halves[1]}};

	if (p->fragment == WHOLE) {
		f.source_port = p->destination_port;
		f.destination_port = p->source_port;
		f.protocol = p->protocol;
	}
	return flow_hash(&f);
}

/* way is the interface to a gateway, and the next hop on it where the tables told; without
 * one the kernel looks for it on that interface.
 */
struct way {
	__u32 ifindex;
	__u32 known;
	struct bpf_redir_neigh next;
};

/* find_way is the route to where an outer header leads: it need not be the interface that
 * the answer was to leave by. That one is preferred where there are several. The tables are
 * read only where the host forwards (the kernel's rule): elsewhere the way is the answer's.
 */
static __always_inline int find_way(struct __sk_buff *skb, const struct ipv6hdr *ip, struct way *w)
{
	struct bpf_fib_lookup to = {.family = AF_INET6, .ifindex = skb->ifindex};
	long found;

	w->ifindex = skb->ifindex;
	to.flowinfo = *(__be32 *)ip & bpf_htonl(0x0fffffff);
	__builtin_memcpy(to.ipv6_src, &ip->saddr, 16);
	__builtin_memcpy(to.ipv6_dst, &ip->daddr, 16);
	found = bpf_fib_lookup(skb, &to, sizeof(to), BPF_FIB_LOOKUP_OUTPUT | BPF_FIB_LOOKUP_SKIP_NEIGH);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return -1;
	if (found != BPF_FIB_LKUP_RET_SUCCESS)
		return 0;
	w->ifindex = to.ifindex;
	w->known = 1;
	w->next.nh_family = AF_INET6;
	__builtin_memcpy(w->next.ipv6_nh, to.ipv6_dst, 16);
	return 0;
}

/* too_big tells whether a packet, or a segment that one will be cut into, does not fit
 * through an interface behind an outer header.
 */
static __always_inline int too_big(struct __sk_buff *skb, const struct packet *p, __u32 ifindex)
{
	__u32 mtu = 0, headers = p->l4 - p->l3 + sizeof(struct ipv6hdr);
	__u8 offset = 0;

	if (bpf_check_mtu(skb, ifindex, &mtu, sizeof(struct ipv6hdr), 0))
		return 1;
	if (!skb->gso_size || p->protocol != IPPROTO_TCP)
		return 0;
	return bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1) ||
	       headers + (offset >> 4) * 4 + skb->gso_size > mtu;
}

/* send_back is H.Encaps.Red (RFC 8986 §5.2) with one of the gateways, by the flow's
 * hash.
 */
static __always_inline int send_back(struct __sk_buff *skb, const struct packet *p, const struct setting *s)
{
	__u64 hash = hash_of(p);
	__u32 index = (hash & 0xffffffff) * s->gateways >> 32;
	union sid *gateway = bpf_map_lookup_elem(&gateways, &index);
	__be16 type = bpf_htons(ETH_P_IPV6);
	struct ipv6hdr ip = {};
	struct way way = {};
	union sid source = {.locator = s->domain.locator, .behaviour = bpf_htons(SID_SOURCE)};

	if (!gateway)
		return count(DROPPED_ROOM, TC_ACT_SHOT);
	source.address.halves[1] |= hash >> 20 << 40; /* the entropy is 24 bits of it */
	*(__be32 *)&ip = bpf_htonl(6u << 28 | (__u32)p->class << 20 | flow_label(hash));
	ip.payload_len = bpf_htons(p->length);
	ip.nexthdr = p->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	ip.hop_limit = OUTER_HOPS;
	copy_address(&ip.saddr, &source);
	copy_address(&ip.daddr, gateway);
	if (find_way(skb, &ip, &way) || too_big(skb, p, way.ifindex))
		return count(DROPPED_TOO_BIG, TC_ACT_SHOT);
	if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0))
		return count(DROPPED_ROOM, TC_ACT_SHOT);
	count(RETURNED, 0);
	return bpf_redirect_neigh(way.ifindex, way.known ? &way.next : NULL, way.known ? sizeof(way.next) : 0, 0);
}

SEC("tcx/egress")
int reply(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct setting *s = bpf_map_lookup_elem(&settings, &zero);
	struct packet p = {};
	enum parsed result;

	if (!s)
		return TC_ACT_UNSPEC;
	result = read_packet(skb, &p);
	if (result == NOT_IP || !bpf_map_lookup_elem(&vips, &p.source))
		return TC_ACT_UNSPEC;
	if (result != PARSED)
		return s->gateways ? count(UNREAD, TC_ACT_UNSPEC) : TC_ACT_UNSPEC;
	if (p.protocol == IPPROTO_TCP && p.fragment == WHOLE && p.flags & TCP_SYN)
		clamp(skb, &p, p.family == AF_INET6 ? s->mss6 : s->mss4);
	if (!s->gateways || leaves_directly(s, &p))
		return TC_ACT_UNSPEC;
	return send_back(skb, &p, s);
}
