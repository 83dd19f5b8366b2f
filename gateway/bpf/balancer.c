// SPDX-License-Identifier: GPL-2.0
/* The balancer: packets of the VIPs go to backends, without a state per flow,
 * but for the few that have a pin.
 *
 *	SYN			current -> second
 *	other TCP		current, or current -> previous
 *	with a pin		owner -> current -> previous
 *	UDP and others		current (final)
 *	new, the slot spills	entry of another site
 *	others, it spills	current -> previous -> entry
 *	QUIC by connection ID	whom it names (final)
 *
 * What is rare has a program of its own behind a tail call, so that the common
 * path stays small.
 */
#include "maps.h"
#include "send.h"
#include "include/slots.h"
#include "entry.h"
#include "flows.h"
#include "icmp.h"
#include "miss.h"
#include "open.h"
#include "path.h"
#include "pins.h"
#include "quic.h"
#include "return.h"
#include "sites.h"
#include "toobig.h"
#include "trace.h"

char _license[] SEC("license") = "GPL";

/* steer sends a packet of a VIP to the backends of its slot. */
static __always_inline int steer(struct xdp_md *ctx, const struct packet *p, struct host *h,
				 const struct vip *v, int traced)
{
	int tcp = p->protocol == IPPROTO_TCP;
	__u32 number = v->service;
	struct service *service = bpf_map_lookup_elem(&services, &number);
	struct table *table = bpf_map_lookup_elem(&tables, &number);
	struct choice c = {};
	struct traffic *came;

	if (!service || !table)
		return count(DROPPED_BACKEND, XDP_DROP);
	if (p->fragment && (tcp || !(service->flags & SERVICE_FRAGMENTS)))
		return count(DROPPED_FRAGMENT, XDP_DROP);
	if (tcp && !valid(p->flags))
		return count(DROPPED_FLAGS, XDP_DROP);
	if (p->hops <= 1)
		return count(DROPPED_HOPS, XDP_DROP);
	came = note(&vip_traffic, v->number, p->length, &c);
	c.hash = hash_of(service, &p->source, p->source_port, p->destination_port, p->protocol);
	choose(&c, table, tcp, p->flags & TCP_SYN);
	count_flow(came, h, &c, tcp && p->flags & TCP_SYN);
	if (tcp && c.marked)
		prefer(&c, p, number);
	if (traced)
		trace_choice(c.hash, c.owner, number);
	if (!tcp && service->flags & SERVICE_QUIC)
		send_quic(ctx, &c, number);
	if (spills(service, &c, tcp))
		send_spilled(ctx, &c, number);
	note(&backend_traffic, c.owner ?: c.current, p->length, &c);
	if (c.owner)
		send_pinned(ctx, &c);
	return send_chosen(ctx, p, h, &c, tcp);
}

/* special tells whether a packet is to a SID of this host, or has an SRH. */
static __always_inline int special(const struct packet *p, const struct host *h, __u32 *behaviour)
{
	if (p->family != AF_INET6)
		return 0;
	*behaviour = behaviour_of(&h->domain, &p->destination);
	return *behaviour || p->routing;
}

/* balance is the balancer. Whether it tells who traces what it does is known where this is
 * inlined.
 */
static __always_inline int balance(struct xdp_md *ctx, struct host *h, int traced)
{
	struct packet p = {};
	enum parsed parsed = parse(ctx, &p);
	__u32 behaviour = 0;
	struct vip *v;

	if (!h || !h->domain.block_mask || parsed == NOT_IP)
		return next_slot(ctx, SLOT_BALANCER);
	if (special(&p, h, &behaviour)) {
		if (behaviour == SID_SOURCE && p.protocol == IPPROTO_ICMPV6)
			bpf_tail_call(ctx, &steps, STEP_PATH);
		if (!in_domain(&h->domain, &p.source))
			return count(DROPPED_OUTSIDER, XDP_DROP);
		if (behaviour == SID_MISS || behaviour == SID_ENTRY || behaviour == SID_RETURN) {
			bpf_tail_call(ctx, &steps, STEP_OPEN);
			return count(DROPPED_STRAY, XDP_DROP);
		}
	}
	if (parsed == MALFORMED && hides_routing(&p) && !in_domain(&h->domain, &p.source))
		return count(DROPPED_OUTSIDER, XDP_DROP);
	if (parsed == MALFORMED || (p.family == AF_INET6 && is_mapped(&p.destination)))
		return next_slot(ctx, SLOT_BALANCER);
	if (p.protocol == IPPROTO_ICMP || p.protocol == IPPROTO_ICMPV6) {
		v = find_vip(h, &p.destination, 0, p.protocol, 1);
		if (!v)
			return next_slot(ctx, SLOT_BALANCER);
		if (traced)
			trace_vip(v);
		bpf_tail_call(ctx, &steps, STEP_ICMP);
		return next_slot(ctx, SLOT_BALANCER);
	}
	v = find_vip(h, &p.destination, p.fragment ? 0 : p.destination_port, p.protocol, p.fragment);
	if (!v)
		return next_slot(ctx, SLOT_BALANCER);
	if (traced)
		trace_vip(v);
	return steer(ctx, &p, h, v, traced);
}

SEC("xdp.frags")
int balancer(struct xdp_md *ctx)
{
	struct host *h = this_host();

	if (h && h->traced)
		bpf_tail_call(ctx, &steps, STEP_TRACED);
	return balance(ctx, h, 0);
}

/* balance_apart returns when all that it calls by tail calls is done. */
__noinline int balance_apart(struct xdp_md *ctx)
{
	return balance(ctx, this_host(), 1);
}

/* balancer_traced is the balancer while somebody traces. */
SEC("xdp.frags")
int balancer_traced(struct xdp_md *ctx)
{
	int look = begin_trace(ctx), verdict = balance_apart(ctx);

	if (look)
		end_trace(ctx, verdict);
	return verdict;
}
