/* SPDX-License-Identifier: GPL-2.0 */
/* A miss: a packet that nobody in its list owned comes back to the gateway that sent it
 * first. It goes on in rounds, each of which begins one later:
 *
 *	round 0		second -> history
 *	round k		the entry of the next other site, from the k-th on
 *	after the last	current (final), whose kernel answers
 *
 * RSTs go to no other site, and new flows to none but where a failover sends them. For a
 * while after the way to a site is lost, a packet that nobody has is dropped: its flow
 * may be there.
 */
#ifndef RAZOR_MISS_H
#define RAZOR_MISS_H

#include "icmp.h"
#include "sites.h"
#include "include/ecn.h"

/* decapsulate takes the outer headers off. The Ethernet header stays, without a tag:
 * the client may have to be told that the packet is too big.
 */
static __always_inline int decapsulate(struct xdp_md *ctx, const struct outer *o, struct packet *inner)
{
	__be16 type = bpf_htons(o->next == IPPROTO_IPV6 ? ETH_P_IPV6 : ETH_P_IP);
	struct ethhdr *eth = (void *)(long)ctx->data, was;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return -1;
	was = *eth;
	was.h_proto = type;
	if (bpf_xdp_adjust_head(ctx, (int)(o->inner - sizeof(*eth))))
		return -1;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return -1;
	*eth = was;
	inner->l3 = sizeof(*eth);
	return parse_ip(ctx, inner, type) == PARSED ? 0 : -1;
}

/* round_of is the round in the argument of a SID, or in an outer source. */
static __always_inline __u8 round_of(const union address *a)
{
	return ((const union sid *)a)->round & ~ROUND_ENTERED;
}

/* keep_congestion has congestion on the way here go on in the next outer header
 * (RFC 6040 §4.2).
 */
static __always_inline void keep_congestion(const struct packet *outer, struct packet *inner)
{
	if ((outer->class & CE) == CE && inner->class & CE)
		inner->class |= CE;
}

/* subject_of finds the flow that a packet is of, or that an ICMP error speaks of. It
 * returns -1 where an error speaks of nothing.
 */
static __always_inline int subject_of(struct xdp_md *ctx, struct embedded *e, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (p->protocol == (p->family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return p->fragment || !is_error(p) || is_forged(p, data, end) || read_embedded(e, p, data, end) ? -1 : 0;
	e->client = p->source;
	e->vip = p->destination;
	e->client_port = p->source_port;
	e->port = p->fragment ? 0 : p->destination_port;
	e->protocol = p->protocol;
	return 0;
}

/* next_site is the number of the first of the other sites from one on that can be
 * reached, and its entry for a flow; 0 for none.
 */
static __always_inline __u32 next_site(const struct host *h, __u32 *number, __u64 hash)
{
	struct site *site = bpf_map_lookup_elem(&sites, number);
	__u32 entry;

	if (!site)
		return 0;
	*number = site->next;
	entry = entry_of(h, *number, hash);
	if (entry)
		return entry;
	(*number)++; /* its last way was lost in this moment */
	site = bpf_map_lookup_elem(&sites, number);
	if (!site)
		return 0;
	*number = site->next;
	return entry_of(h, *number, hash);
}

/* patient tells whether a way was lost a moment ago. */
static __always_inline int patient(const struct host *h)
{
	__u32 until = *(volatile const __u32 *)&h->patient;

	return until && (__s32)(until - (__u32)(bpf_ktime_get_coarse_ns() / SECOND)) > 0;
}

/* send_away asks another site. */
static __always_inline int send_away(struct xdp_md *ctx, const struct packet *p, const struct host *h,
				     struct asked *a, __u32 entry, __u64 hash, __u8 round)
{
	union address source = source_of(h, hash, round);
	struct choice none = {}; /* the flow was counted when the packet came */

	if (!may_ask(hash))
		return count(DROPPED_BUDGET, XDP_DROP);
	ask(a, entry);
	note(&backend_traffic, entry, p->length, &none);
	count(STEERED_AWAY, 0);
	return send_list(ctx, p, &source, a, hash);
}

/* send_final has the one that is current take a packet at the end of a list, if there is
 * one.
 */
static __always_inline int send_final(struct xdp_md *ctx, const struct packet *p, const union address *source,
				      struct asked *a, __u32 current, __u64 hash)
{
	struct backend *last = bpf_map_lookup_elem(&backends, &current);
	__u32 n = a->own->n;

	if (current && last) {
		if (!n)
			a->own->first = current;
		a->own->list[n & 7] = last->sid;
		make_final(&a->own->list[n & 7]);
		a->own->n = ++n;
	}
	if (!n)
		return count(DROPPED_STRAY, XDP_DROP);
	count(STEERED_MISS, 0);
	return send_list(ctx, p, source, a, hash);
}

/* steer_miss sends a packet to whom it was not sent before. */
static __always_inline int steer_miss(struct xdp_md *ctx, const struct packet *p, const struct host *h,
				      const struct embedded *e, __u32 number, __u8 round)
{
	struct service *service = bpf_map_lookup_elem(&services, &number);
	struct table *table = bpf_map_lookup_elem(&tables, &number);
	struct histories *of = bpf_map_lookup_elem(&histories, &number);
	struct asked a = {};
	int home = p->flags & (TCP_SYN | TCP_RST);
	union address source;
	struct choice c = {};
	__u32 site, entry;

	if (!service || !table || !of || begin_list(&a, MAX_SEGMENTS - 1))
		return count(DROPPED_BACKEND, XDP_DROP);
	c.hash = hash_of(service, &e->client, e->client_port, e->port, IPPROTO_TCP);
	choose(&c, table, 1, p->flags & TCP_SYN);
	trace_choice(c.hash, c.owner, number);
	if (!round && !(p->flags & TCP_SYN)) {
		__u32 second = second_of(table, flow_slot(c.hash), c.current);

		a.not[0] = c.current;
		a.not[1] = c.other;
		ask(&a, second);
		a.not[2] = second;
		ask_former(&a, former_of(of, flow_slot(c.hash)));
	}
	source = source_of(h, c.hash, 1);
	if (a.own->n && h->sites && !home) {
		count(STEERED_MISS, 0);
		return send_list(ctx, p, &source, &a, c.hash);
	}
	site = round ? round - 1 : 0;
	/* A new flow that comes back from a failover may go on. */
	if (p->flags & TCP_SYN && round && !c.current)
		home = 0;
	entry = home ? 0 : next_site(h, &site, c.hash);
	if (entry) {
		trace_site(site);
		return send_away(ctx, p, h, &a, entry, c.hash, site + 2);
	}
	if (!home && h->sites && patient(h))
		return count(DROPPED_NEIGHBOUR, XDP_DROP);
	return send_final(ctx, p, &source, &a, c.current, c.hash);
}

/* balancer_miss goes on with a packet that was opened. */
SEC("xdp.frags")
int balancer_miss(struct xdp_md *ctx)
{
	struct scratch *own = scratch_of_cpu();
	struct packet inner = {};
	struct host *h = this_host();
	struct embedded e = {};
	struct vip *v;

	if (!h || !own || decapsulate(ctx, &own->outer, &inner) || subject_of(ctx, &e, &inner))
		return count(DROPPED_MALFORMED, XDP_DROP);
	trace_flow(&e, &inner);
	trace_round(round_of(&own->packet.destination) + 1);
	if (inner.hops <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	keep_congestion(&own->packet, &inner);
	v = find_vip(h, &e.vip, e.port, e.protocol, 0);
	if (!v || inner.fragment || e.protocol != IPPROTO_TCP)
		return count(DROPPED_STRAY, XDP_DROP);
	trace_vip(v);
	return steer_miss(ctx, &inner, h, &e, v->service, round_of(&own->packet.destination));
}

/* balancer_lost is for a packet of TCP whose row has nobody: a miss at once. */
SEC("xdp.frags")
int balancer_lost(struct xdp_md *ctx)
{
	struct host *h = this_host();
	struct packet p = {};
	struct embedded e = {};
	struct vip *v;

	if (!h || parse(ctx, &p) != PARSED || subject_of(ctx, &e, &p))
		return count(DROPPED_MALFORMED, XDP_DROP);
	v = find_vip(h, &e.vip, e.port, e.protocol, 0);
	if (!v)
		return count(DROPPED_BACKEND, XDP_DROP);
	return steer_miss(ctx, &p, h, &e, v->service, 0);
}

#endif
