/* SPDX-License-Identifier: GPL-2.0 */
/* ICMP to a VIP: an echo is answered here, an error goes to the backend of the flow
 * that it speaks of.
 */
#ifndef RAZOR_ICMP_H
#define RAZOR_ICMP_H

#include "limit.h"
#include "pins.h"
#include "sites.h"
#include "toobig.h"
#include "trace.h"
#include "include/slots.h"

/* answer_echo turns an echo request round (RFC 792, RFC 4443 §4.2). */
static __always_inline int answer_echo(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 mac[ETH_ALEN];
	struct icmp_header *icmp;

	if ((void *)(eth + 1) > end)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (p->family == AF_INET6) {
		struct ipv6hdr *ip = data + within(p->l3);

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > end || p->l4 != p->l3 + sizeof(*ip))
			return count(DROPPED_MALFORMED, XDP_DROP);
		__builtin_memcpy(&ip->saddr, &p->destination, 16);
		__builtin_memcpy(&ip->daddr, &p->source, 16);
		ip->hop_limit = OUTER_HOPS;
		icmp->checksum = csum_replace(icmp->checksum, bpf_htons(ICMPV6_ECHO_REQUEST << 8),
						 bpf_htons(ICMPV6_ECHO_REPLY << 8));
		icmp->type = ICMPV6_ECHO_REPLY;
	} else {
		struct iphdr *ip = data + within(p->l3);
		__u16 *word = (__u16 *)&ip->ttl, was;

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > end || p->l4 != p->l3 + sizeof(*ip))
			return count(DROPPED_MALFORMED, XDP_DROP);
		ip->saddr = p->destination.words[3];
		ip->daddr = p->source.words[3];
		was = *word;
		ip->ttl = OUTER_HOPS;
		ip->check = csum_replace(ip->check, was, *word);
		icmp->checksum =
			csum_replace(icmp->checksum, bpf_htons(ICMP_ECHO_REQUEST << 8), bpf_htons(ICMP_ECHO_REPLY << 8));
		icmp->type = ICMP_ECHO_REPLY;
	}
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return count(ANSWERED_ECHO, XDP_TX);
}

/* read_embedded reads the packet in an error; a backend sends no options and no
 * extension headers. It returns -1 where it cannot be ours.
 */
static __always_inline int read_embedded(struct embedded *e, const struct packet *p, void *data, void *end)
{
	void *at = data + within(p->l4) + sizeof(struct icmp_header);
	__be16 *ports;

	if (p->family == AF_INET6) {
		struct ipv6hdr *ip = at;

		ports = (void *)(ip + 1);
		if ((void *)(ports + 4) > end || ip->version != 6)
			return -1;
		e->protocol = ip->nexthdr;
		__builtin_memcpy(&e->vip, &ip->saddr, 16);
		__builtin_memcpy(&e->client, &ip->daddr, 16);
	} else {
		struct iphdr *ip = at;

		ports = (void *)(ip + 1);
		if ((void *)(ports + 4) > end || ip->version != 4 || ip->ihl != 5)
			return -1;
		e->protocol = ip->protocol;
		e->vip = p->destination;
		e->vip.words[3] = ip->saddr;
		e->client = p->destination;
		e->client.words[3] = ip->daddr;
	}
	e->port = ports[0];
	e->client_port = ports[1];
	if (e->protocol != IPPROTO_TCP && e->protocol != IPPROTO_UDP)
		return -1;
	return e->vip.halves[0] == p->destination.halves[0] && e->vip.halves[1] == p->destination.halves[1] ? 0 : -1;
}

/* is_error tells whether an ICMP message speaks of another packet. */
static __always_inline int is_error(const struct packet *p)
{
	if (p->family == AF_INET)
		return p->type == ICMP_UNREACHABLE || p->type == ICMP_TIME_EXCEEDED || p->type == ICMP_PARAMETER_PROBLEM;
	return p->type >= ICMPV6_UNREACHABLE && p->type <= ICMPV6_PARAMETER_PROBLEM;
}

/* is_forged tells whether a packet too big is below what IPv6 has everywhere (RFC 8201
 * §4).
 */
static __always_inline int is_forged(const struct packet *p, void *data, void *end)
{
	struct icmp_header *icmp = data + within(p->l4);

	if ((void *)(icmp + 1) > end)
		return 1;
	return p->family == AF_INET6 && p->type == ICMPV6_TOO_BIG && bpf_ntohl(icmp->rest) < MIN_MTU;
}

/* nobody tells whether a source is no client's: several hosts, or the VIP itself. */
static __always_inline int nobody(const struct packet *p)
{
	const union address *a = &p->source;

	if (a->halves[0] == p->destination.halves[0] && a->halves[1] == p->destination.halves[1])
		return 1;
	return p->family == AF_INET6 ? a->bytes[0] == 0xff : a->bytes[12] >= 224;
}

/* prefer_for_error is prefer for an error, which is no sign of life of the flow. */
static __always_inline void prefer_for_error(struct choice *c, const struct embedded *e, __u32 service)
{
	struct pin_key k = {
		.client = e->client,
		.vip = e->vip,
		.client_port = e->client_port,
		.vip_port = e->port,
		.protocol = IPPROTO_TCP,
	};
	struct pin *pin = look_up(&k, service, bpf_ktime_get_coarse_ns() / SECOND);

	if (pin)
		name_owner(c, pin);
}

/* steer_error sends an error to the backends of the flow that it speaks of. */
static __always_inline int steer_error(struct xdp_md *ctx, const struct packet *p, const struct host *h)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct embedded e = {};
	struct service *service;
	struct table *table;
	struct choice c = {};
	struct vip *v;
	__u32 number;

	if (is_forged(p, data, end) || read_embedded(&e, p, data, end))
		return count(DROPPED_MALFORMED, XDP_DROP);
	v = find_vip(h, &e.vip, e.port, e.protocol, 0);
	if (!v)
		return next_slot(ctx, SLOT_BALANCER);
	trace_flow(&e, p);
	trace_vip(v);
	number = v->service;
	service = bpf_map_lookup_elem(&services, &number);
	table = bpf_map_lookup_elem(&tables, &number);
	if (!service || !table)
		return count(DROPPED_BACKEND, XDP_DROP);
	c.hash = hash_of(service, &e.client, e.client_port, e.port, e.protocol);
	choose(&c, table, e.protocol == IPPROTO_TCP, 0);
	if (e.protocol == IPPROTO_TCP && c.marked)
		prefer_for_error(&c, &e, number);
	trace_choice(c.hash, c.owner, number);
	count(STEERED_ERROR, 0);
	if (c.owner)
		send_pinned(ctx, &c);
	if (e.protocol != IPPROTO_TCP && spills(service, &c, 0))
		send_spilled(ctx, &c, number);
	return send_chosen(ctx, p, h, &c, e.protocol == IPPROTO_TCP);
}

SEC("xdp.frags")
int balancer_icmp(struct xdp_md *ctx)
{
	struct packet p = {};
	struct host *h = this_host();
	struct scratch *own = scratch_of_cpu();

	if (!h || !own || parse(ctx, &p) != PARSED)
		return next_slot(ctx, SLOT_BALANCER);
	if (p.fragment)
		return count(DROPPED_FRAGMENT, XDP_DROP);
	if (p.family == AF_INET6 ? p.protocol != IPPROTO_ICMPV6 : p.protocol != IPPROTO_ICMP)
		return next_slot(ctx, SLOT_BALANCER);
	if (nobody(&p))
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (p.type == (p.family == AF_INET6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST))
		return within_limit(&own->echoed) ? answer_echo(ctx, &p) : count(DROPPED_ECHO, XDP_DROP);
	if (!is_error(&p))
		return next_slot(ctx, SLOT_BALANCER);
	if (p.hops <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	return steer_error(ctx, &p, h);
}

#endif
