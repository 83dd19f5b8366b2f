/* SPDX-License-Identifier: GPL-2.0 */
/* Pins: flows that belong to another backend than the row of their slot says. A pin is
 * a shortcut: the row's backends stay behind the owner in the list, so that the flow
 * is found where the pin is wrong.
 *
 *	a pin's flow	owner -> current -> previous
 *
 * Only marked rows have flows with pins, so that all others never look.
 */
#ifndef RAZOR_PINS_H
#define RAZOR_PINS_H

#include "list.h"

/* idle_for is for how long no packet of a pin's flow came, in s. The clock of who wrote
 * it may be a little ahead.
 */
static __always_inline __s32 idle_for(const struct pin *pin, __u32 now)
{
	return now - pin->used;
}

/* use notes a packet of a pin's flow, at most once in a second. */
static __always_inline void use(struct pin *pin, __u32 now, __u8 flags)
{
	if (pin->used != now)
		pin->used = now;
	if (flags & (TCP_FIN | TCP_RST) && !pin->closing)
		pin->closing = 1;
}

/* look_up finds the pin of a flow of a service, NULL where it is idle for too long. */
static __always_inline struct pin *look_up(const struct pin_key *k, __u32 service, __u32 now)
{
	struct pin *pin = bpf_map_lookup_elem(&pins, k);

	if (!pin || pin->service != service ||
	    idle_for(pin, now) > (pin->closing ? PIN_CLOSING : PIN_IDLE))
		return NULL;
	return pin;
}

/* name_owner gives a choice the owner that a pin names, if there was a way to it once and
 * the list does not begin with it anyway.
 */
static __always_inline void name_owner(struct choice *c, const struct pin *pin)
{
	__u32 owner = pin->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &owner);

	if (owner != c->current && b && b->found)
		c->owner = owner;
}

/* prefer gives the choice for a packet of TCP in a marked row the owner that its flow
 * has by its pin. A new flow has none, and ends the pin of an old one with its ports.
 */
static __always_inline void prefer(struct choice *c, const struct packet *p, __u32 service)
{
	__u32 now = bpf_ktime_get_coarse_ns() / SECOND;
	struct pin_key k = {
		.client = p->source,
		.vip = p->destination,
		.client_port = p->source_port,
		.vip_port = p->destination_port,
		.protocol = IPPROTO_TCP,
	};
	struct pin *pin;

	if (p->flags & TCP_SYN) {
		if (bpf_map_lookup_elem(&pins, &k))
			bpf_map_delete_elem(&pins, &k);
		return;
	}
	pin = look_up(&k, service, now);
	if (!pin)
		return;
	use(pin, now, p->flags);
	name_owner(c, pin);
}

/* send_pinned goes on with the program for flows with pins. Without it, the row's
 * backends hunt for the flow.
 */
static __always_inline void send_pinned(struct xdp_md *ctx, const struct choice *c)
{
	struct scratch *s = scratch_of_cpu();

	if (!s)
		return;
	s->choice = *c;
	bpf_tail_call(ctx, &steps, STEP_PINNED);
}

/* balancer_pinned sends a packet of the scratch's choice. Without a way to the owner it is
 * dropped: nobody else may say that there is no such flow.
 */
SEC("xdp.frags")
int balancer_pinned(struct xdp_md *ctx)
{
	struct packet p = {};
	struct host *h = this_host();
	struct asked a = {};
	union address source;
	struct choice c;

	if (!h || begin_list(&a, MAX_SEGMENTS) || parse(ctx, &p) != PARSED)
		return count(DROPPED_MALFORMED, XDP_DROP);
	c = a.own->choice;
	ask(&a, c.owner);
	if (!a.own->n)
		return count(DROPPED_NEIGHBOUR, XDP_DROP);
	a.not[0] = c.owner;
	ask(&a, c.current);
	ask(&a, c.other);
	source = source_of(h, c.hash, 0);
	return send_list(ctx, &p, &source, &a, c.hash);
}

#endif
