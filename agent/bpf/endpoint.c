// SPDX-License-Identifier: GPL-2.0
/* The endpoint: it takes packets that gateways encapsulated for this host and its
 * containers, and hands on those that belong to another one.
 */
#include "owner.h"
#include "behaviours.h"
#include "clamp.h"

#define SECOND 1000000000ull

char LICENSE[] SEC("license") = "GPL";

/* Types that user space needs and no map has. */
const struct event *unused_event __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum slot *unused_slot __attribute__((unused));

/* from_gateway tells whether an outer source is a gateway's, which takes misses. */
static __always_inline int from_gateway(const struct domain *d, const union address *source)
{
	const union sid *s = (const void *)source;

	return in_domain(d, source) && s->behaviour == bpf_htons(SID_SOURCE);
}

/* hear notes that a gateway is there, once in a tick: all CPUs write there. */
static __always_inline void hear(const union address *source)
{
	__u64 now, *last = bpf_map_lookup_elem(&heard, &source->halves[0]);

	if (!last)
		return;
	now = bpf_ktime_get_coarse_ns();
	if (*last != now)
		*last = now;
}

/* misplaced tells whether a packet was not found where its row sends it first. Lists
 * are whole in our domain, so the first segment has the index Last Entry.
 */
static __always_inline int misplaced(const struct packet *outer, const struct outer *o)
{
	const union sid *source = (const void *)&outer->source;

	return source->round || (o->srh && o->left + 1 < o->length / sizeof(union address));
}

/* tell has the agent pin a flow, at most once in a second. */
static __always_inline void tell(const struct packet *outer, const struct outer *o,
				 const struct conversation *c, __u32 target)
{
	__u64 now = bpf_ktime_get_ns(), *last = bpf_map_lookup_elem(&told, c);
	struct event *e;

	if (last && now - *last < SECOND)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(EVENT_LOST, 0);
		return;
	}
	e->source.address = outer->source;
	e->flow = *c;
	e->target = target;
	e->segment = o->srh ? o->length / sizeof(union address) - 1 - o->left : 0;
	e->protocol = IPPROTO_TCP;
	e->spare = 0;
	bpf_ringbuf_submit(e, 0);
	bpf_map_update_elem(&told, c, &now, BPF_ANY);
}

/* welcome counts a connection that begins: with the packet that ends its handshake, and
 * what follows that before the kernel has seen it.
 */
static __always_inline void welcome(const union address *source, __u32 target)
{
	struct accepted *a = bpf_map_lookup_elem(&accepted_by, &target);

	if (!a)
		return;
	if (bpf_map_lookup_elem(&heard, &source->halves[0]))
		a->own++;
	else
		a->guests++;
}

/* is_vip tells whether a packet is to a VIP of a target. An address of IPv4 in a packet
 * of IPv6 is none: no host may send that.
 */
static __always_inline int is_vip(const struct packet *inner, __u32 target)
{
	struct vip_key key = {.address = inner->destination, .target = target};

	if (inner->family == AF_INET6 && is_mapped(&inner->destination))
		return 0;
	return bpf_map_lookup_elem(&vips, &key) != NULL;
}

/* hunt is End.DT46 for the owner of the packet, and End for everybody else. Who sent a
 * packet and cannot take a miss, as plain Linux cannot, has it taken by the last in its
 * list, whose kernel answers it.
 */
static __always_inline __u32 hunt(struct xdp_md *ctx, const struct domain *d,
				  const struct packet *outer, const struct outer *o,
				  const struct packet *inner, const struct target *t, __u32 target)
{
	struct seeker s = {.target = t, .last = !o->left};
	struct conversation c = {};
	__u32 reason = owner(ctx, inner, &c, &s);

	if (reason == TAKEN_SOCKET && !(inner->flags & (TCP_SYN | TCP_RST)) &&
	    misplaced(outer, o) && from_gateway(d, &outer->source))
		tell(outer, o, &c, target);
	if (reason == NOBODY && !o->left && !from_gateway(d, &outer->source))
		return TAKEN_STRAY;
	return reason;
}

/* act does what a SID of this host says. */
static __always_inline int act(struct xdp_md *ctx, const struct domain *d, const struct packet *p,
			       __u32 behaviour)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 reason = TAKEN_FINAL, target = bpf_ntohs(((const union sid *)&p->destination)->target);
	struct target *t = bpf_map_lookup_elem(&targets, &target);
	struct handled *h = bpf_map_lookup_elem(&handled_by, &target);
	struct packet inner = {};
	struct outer o;

	if (!t || !h || !t->present)
		return count(DROPPED_TARGET, XDP_DROP);
	if (t->packet && from_gateway(d, &p->source))
		hear(&p->source);
	if (parse_outer(&o, p->l3, data, end))
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (behaviour == SID_FINAL && o.left)
		return count(DROPPED_SEGMENTS, XDP_DROP);
	if (parse_inner(&inner, p, &o, data, end) != PARSED)
		return count(DROPPED_MALFORMED, XDP_DROP);
	if (inner.routing)
		return count(DROPPED_OUTSIDER, XDP_DROP);
	if (!is_vip(&inner, target))
		return count(DROPPED_VIP, XDP_DROP);
	if (behaviour == SID_HUNT)
		reason = hunt(ctx, d, p, &o, &inner, t, target);
	if (reason == NOBODY)
		return o.left ? end_(ctx, d, &o, h) : bounce(ctx, d, p, h);
	if ((reason == TAKEN_REQUEST || reason == TAKEN_COOKIE) && !(inner.flags & TCP_RST))
		welcome(&p->source, target);
	clamp(ctx, &inner, t->packet);
	return end_dt46(ctx, p, &inner, t, h, reason);
}

SEC("xdp.frags")
int endpoint(struct xdp_md *ctx)
{
	__u32 zero = 0, behaviour;
	struct domain *d = bpf_map_lookup_elem(&domains, &zero);
	struct packet p = {};
	enum parsed result;

	if (!d || !d->locator)
		return next_slot(ctx, SLOT_ENDPOINT);
	result = parse(ctx, &p);
	if (p.family != AF_INET6)
		return next_slot(ctx, SLOT_ENDPOINT);
	behaviour = behaviour_of(d, &p.destination);
	if (behaviour > SID_FINAL)
		behaviour = 0;
	if (!in_domain(d, &p.source)) {
		if (p.routing || behaviour)
			return count(DROPPED_OUTSIDER, XDP_DROP);
		if (result == MALFORMED && hides_routing(&p))
			return count(DROPPED_MALFORMED, XDP_DROP);
	}
	if (!behaviour)
		return next_slot(ctx, SLOT_ENDPOINT);
	if (result != PARSED)
		return count(DROPPED_MALFORMED, XDP_DROP);
	return act(ctx, d, &p, behaviour);
}
