/* SPDX-License-Identifier: GPL-2.0 */
/* A miss: a packet that nobody in its list owned comes back. Round 0 tries the
 * slot's second backend and its history; who is current takes it in any case then.
 */
#ifndef RAZOR_MISS_H
#define RAZOR_MISS_H

#include "list.h"

#define CE 3 /* RFC 3168 §5 */

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

/* append puts a backend behind a list unless it has been asked already. */
static __always_inline __u32 append(struct scratch *s, __u32 n, __u32 backend, const struct choice *c)
{
	struct backend *b;

	if (!backend || backend == c->current || backend == c->other || n >= MAX_SEGMENTS - 1)
		return n;
	b = bpf_map_lookup_elem(&backends, &backend);
	if (!b || !b->hop.ifindex)
		return n;
	s->list[n & 7] = b->sid;
	return n + 1;
}

/* steer_miss sends a packet to whom it was not sent before. */
static __always_inline int steer_miss(struct xdp_md *ctx, const struct packet *p, const struct host *h,
				      const struct vip *v, __u8 round)
{
	__u32 number = v->service, n = 0, slot, second;
	struct service *service = bpf_map_lookup_elem(&services, &number);
	struct table *table = bpf_map_lookup_elem(&tables, &number);
	struct histories *histories_of = bpf_map_lookup_elem(&histories, &number);
	struct scratch *own = scratch_of_cpu();
	struct backend *last, *first;
	struct choice c = {};
	__u64 former;
	__u32 index;

	if (!service || !table || !histories_of || !own)
		return count(DROPPED_BACKEND, XDP_DROP);
	c.hash = hash_of(service, &p->source, p->source_port, p->destination_port, p->protocol);
	choose(&c, table, 1, 0);
	slot = flow_slot(c.hash);
	last = bpf_map_lookup_elem(&backends, &c.current);
	if (!c.current || !last || slot >= TABLE_SLOTS)
		return count(DROPPED_BACKEND, XDP_DROP);
	first = last;
	if (round == 0) {
		second = second_of(table, slot, c.current);
		n = append(own, n, second, &c);
		index = n ? second : 0;
		former = *(volatile __u64 *)&histories_of->former[slot];
#pragma unroll
		for (int i = 0; i < HISTORY; i++) {
			__u32 backend = former >> (16 * i) & 0xffff, was = n;

			if (backend != second)
				n = append(own, n, backend, &c);
			if (!was && n)
				index = backend;
		}
		if (n) {
			first = bpf_map_lookup_elem(&backends, &index);
			if (!first)
				return count(DROPPED_BACKEND, XDP_DROP);
		}
	}
	own->list[n & 7] = last->sid;
	own->list[n & 7].behaviour = bpf_htons(SID_FINAL);
	count(STEERED_MISS, 0);
	return send_list(ctx, p, h, own, c.hash, 1, n + 1, &first->hop);
}

SEC("xdp.frags")
int balancer_miss(struct xdp_md *ctx)
{
	struct packet p = {}, inner = {};
	struct host *h = this_host();
	struct outer o;
	struct vip *v;
	__u8 round;

	if (!h || parse(ctx, &p) == NOT_IP ||
	    parse_outer(&o, p.l3, (void *)(long)ctx->data, (void *)(long)ctx->data_end) || o.left)
		return count(DROPPED_MALFORMED, XDP_DROP);
	round = ((union sid *)&p.destination)->round;
	if (decapsulate(ctx, &o, &inner))
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (inner.hops <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	/* RFC 6040 §4.2: congestion on the way here goes on in the next outer header. */
	if ((p.class & CE) == CE && inner.class & CE)
		inner.class |= CE;
	v = find_vip(h, &inner.destination, inner.destination_port, inner.protocol, 0);
	if (!v || inner.fragment || inner.protocol != IPPROTO_TCP)
		return count(DROPPED_STRAY, XDP_DROP);
	return steer_miss(ctx, &inner, h, v, round);
}

#endif
