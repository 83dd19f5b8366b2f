/* SPDX-License-Identifier: GPL-2.0 */
/* The candidates of the common path, and sending a packet along them. */
#ifndef RAZOR_SEND_H
#define RAZOR_SEND_H

#include "encapsulate.h"
#include "steer.h"

/* choose reads the row of a hash. Without flows to be hunted for there is no other;
 * that of a new flow is the slot's second backend. A slot without any goes to its
 * second, with all packets alike.
 */
static __always_inline void choose(struct choice *c, const struct table *t, int hunted, int new)
{
	__u32 slot = flow_slot(c->hash), row = row_at(t, slot);

	c->marked = row & ROW_MARK;
	c->current = ROW_CURRENT(row);
	if (hunted)
		c->other = new ? second_of(t, slot, c->current) : ROW_PREVIOUS(row);
	if (!c->current) {
		c->current = c->other ?: second_of(t, slot, 0);
		c->other = 0;
	}
	if (c->current == c->other)
		c->other = 0;
}

/* too_big goes on with the program that tells the client. */
static __always_inline int too_big(struct xdp_md *ctx, const struct hop *hop)
{
	struct scratch *s = scratch_of_cpu();

	if (s) {
		s->mtu = hop->mtu;
		bpf_tail_call(ctx, &steps, STEP_TOO_BIG);
	}
	return count(DROPPED_TOO_BIG, XDP_DROP);
}

/* send_chosen sends a packet to its candidates: to the second alone where there is no
 * way to the first. What cannot be hunted for has to be taken by the one that is
 * current.
 */
static __always_inline int send_chosen(struct xdp_md *ctx, const struct packet *p, const struct host *h,
				       const struct choice *c, int hunted)
{
	struct backend *first = bpf_map_lookup_elem(&backends, &c->current);
	struct backend *then = c->other ? bpf_map_lookup_elem(&backends, &c->other) : NULL;
	union address source = source_of(h, c->hash, 0);
	struct segments list;

	if (!c->current || !first) {
		if (hunted && !(p->flags & TCP_SYN))
			bpf_tail_call(ctx, &steps, STEP_LOST);
		return count(DROPPED_BACKEND, XDP_DROP);
	}
	if (then && !first->hop.ifindex) {
		first = then;
		then = NULL;
	}
	if (p->length + overhead(then ? 2 : 1) > first->hop.mtu && first->hop.ifindex)
		return too_big(ctx, &first->hop);
	copy_address(&list.list[0], &first->sid);
	if (!hunted)
		make_final(&list.list[0]);
	if (!then)
		return encapsulate(ctx, p, &source, c->hash, &list, 1, &first->hop);
	copy_address(&list.list[1], &then->sid);
	return encapsulate(ctx, p, &source, c->hash, &list, 2, &first->hop);
}

#endif
