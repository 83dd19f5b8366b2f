/* SPDX-License-Identifier: GPL-2.0 */
/* The entry of this site: packets that gateways of other sites send. They are steered
 * like those of clients, but keep the outer source of their first gateway: a miss goes
 * back there, as does the word of a backend that it has the flow. What missed already is
 * asked for among those who left the row as well. Nothing goes on to a third site.
 */
#ifndef RAZOR_ENTRY_H
#define RAZOR_ENTRY_H

#include "flows.h"
#include "miss.h"
#include "quic.h"

/* of_other_gateway tells whether an outer source is one of another gateway. */
static __always_inline int of_other_gateway(const struct domain *d, const union address *source)
{
	const union sid *s = (const void *)source;

	return in_domain(d, source) && s->locator != d->locator && s->behaviour == bpf_htons(SID_SOURCE);
}

/* give_back has the gateway that a packet comes from go on with it, as nobody is here.
 * It is sent to the router that it came from, which knows the way.
 */
static __always_inline int give_back(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + within(p->l3);
	struct ethhdr *eth = data;
	__u8 mac[ETH_ALEN];
	union sid to;

	if ((void *)(eth + 1) > end || (void *)(ip + 1) > end)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (ip->hop_limit <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	to.address = p->source;
	to.behaviour = bpf_htons(SID_MISS);
	ip->hop_limit--;
	copy_address(&ip->saddr, &p->destination);
	copy_address(&ip->daddr, &to);
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return count(GIVEN_BACK, XDP_TX);
}

/* ask_here asks the backends of a flow: the owner by its pin, those of the row, and of
 * what missed already, those who left it. The second one of the slot has at most gone on
 * with new flows, and is asked the last.
 */
static __always_inline void ask_here(struct asked *a, const struct choice *c, const struct table *table,
				     const struct histories *of, int missed)
{
	ask(a, c->owner);
	a->not[0] = c->owner;
	ask(a, c->current);
	a->not[1] = c->current;
	ask(a, c->other);
	a->not[2] = c->other;
	if (missed) {
		__u64 former = former_of(of, flow_slot(c->hash));
		__u32 second = second_of(table, flow_slot(c->hash), c->current);

		ask_former(a, former);
		if (!is_former(former, second))
			ask(a, second);
	}
}

/* refused is the reason to drop a packet that no client may send, 0 for none. */
static __always_inline __u32 refused(const struct packet *p, const struct service *s)
{
	int tcp = p->protocol == IPPROTO_TCP;

	if (p->fragment && (tcp || !(s->flags & SERVICE_FRAGMENTS)))
		return DROPPED_FRAGMENT;
	if (tcp && !valid(p->flags))
		return DROPPED_FLAGS;
	return p->hops <= 1 ? DROPPED_HOPS : 0;
}

/* steer_entered finds the list for a packet. No list is sent back. */
static __always_inline __u32 steer_entered(struct xdp_md *ctx, struct asked *a, struct choice *c, struct host *h,
					   const struct packet *p, const struct embedded *e, const struct vip *v, __u8 round)
{
	__u32 number = v->service, reason;
	struct service *service = bpf_map_lookup_elem(&services, &number);
	struct table *table = bpf_map_lookup_elem(&tables, &number);
	struct histories *of = bpf_map_lookup_elem(&histories, &number);
	int tcp = e->protocol == IPPROTO_TCP;
	int new = p->protocol == IPPROTO_TCP && p->flags & TCP_SYN;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	trace_vip(v);
	if (!service || !table || !of)
		return 0;
	reason = refused(p, service);
	if (reason)
		return reason;
	c->hash = hash_of(service, &e->client, e->client_port, e->port, e->protocol);
	choose(c, table, tcp, new);
	if (tcp && c->marked && !new)
		prefer_for_error(c, e, number);
	trace_choice(c->hash, c->owner, number);
	if (!tcp && service->flags & SERVICE_QUIC)
		name_server(c, p, service, number, data, end);
	if (tcp)
		ask_here(a, c, table, of, round && !new);
	else
		ask(a, c->current);
	if (!tcp && a->own->n)
		make_final(&a->own->list[0]);
	if (a->own->n) {
		struct choice none = {};
		struct traffic *came = note(&vip_traffic, v->number, p->length, &none);

		if (p->protocol == e->protocol) /* no error, which is no sign of life of the flow */
			count_flow(came, h, c, new);
		note(&backend_traffic, a->own->first, p->length, c);
	}
	return 0;
}

/* balancer_entry goes on with a packet that was opened. */
SEC("xdp.frags")
int balancer_entry(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet inner = {};
	struct host *h = this_host();
	struct choice c = {};
	struct embedded e = {};
	struct asked a = {};
	struct packet *p;
	union address source;
	struct vip *v;
	__u32 reason;
	__u8 round;

	if (!h || begin_list(&a, MAX_SEGMENTS))
		return count(DROPPED_MALFORMED, XDP_DROP);
	p = &a.own->packet;
	if (!of_other_gateway(&h->domain, &p->source) ||
	    parse_inner(&inner, p, &a.own->outer, data, end) != PARSED || inner.routing || subject_of(ctx, &e, &inner))
		return count(DROPPED_MALFORMED, XDP_DROP);
	trace_flow(&e, &inner);
	round = round_of(&p->source);
	trace_round(round);
	v = find_vip(h, &e.vip, e.port, e.protocol, inner.fragment);
	reason = v ? steer_entered(ctx, &a, &c, h, &inner, &e, v, round) : 0;
	if (reason)
		return count(reason, XDP_DROP);
	if (!a.own->n)
		return give_back(ctx, p);
	source = with_round(&p->source, ROUND_ENTERED);
	__builtin_memset(&inner, 0, sizeof(inner));
	if (decapsulate(ctx, &a.own->outer, &inner))
		return count(DROPPED_MALFORMED, XDP_DROP);
	keep_congestion(p, &inner);
	count(ENTERED, 0);
	return send_list(ctx, &inner, &source, &a, c.hash);
}

#endif
