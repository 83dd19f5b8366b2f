/* SPDX-License-Identifier: GPL-2.0 */
/* Sending a packet along a list of any length, which is made in the scratch. */
#ifndef RAZOR_LIST_H
#define RAZOR_LIST_H

#include "send.h"

/* asked is a list in the making: the scratch's. There the verifier does not follow how
 * long it is, or it would try each combination of who is on it.
 */
struct asked {
	struct scratch *own;
	__u32 most;
	__u32 not[4]; /* who need not be asked */
};

/* begin_list begins a list with room for some segments. It returns -1 where it cannot. */
static __always_inline int begin_list(struct asked *a, __u32 most)
{
	a->own = scratch_of_cpu();
	if (!a->own)
		return -1;
	a->own->n = 0;
	a->own->first = 0;
	a->most = most;
	return 0;
}

/* ask puts a backend at the end of a list if there is a way to it, and room. */
static __always_inline void ask(struct asked *a, __u32 backend)
{
	__u32 n = a->own->n;
	struct backend *b;

	if (!backend || backend == a->not[0] || backend == a->not[1] || backend == a->not[2] ||
	    backend == a->not[3] || n >= a->most)
		return;
	b = bpf_map_lookup_elem(&backends, &backend);
	if (!b || !b->hop.ifindex)
		return;
	a->own->list[n & 7] = b->sid;
	if (!n)
		a->own->first = backend;
	a->own->n = n + 1;
}

/* former_of are those who left the row of a slot. */
static __always_inline __u64 former_of(const struct histories *of, __u32 slot)
{
	return slot < TABLE_SLOTS ? *(volatile const __u64 *)&of->former[slot] : 0;
}

/* ask_former asks those who left the row of a slot. */
static __always_inline void ask_former(struct asked *a, __u64 former)
{
#pragma unroll
	for (int i = 0; i < HISTORY; i++)
		ask(a, former >> (16 * i) & 0xffff);
}

/* is_former tells whether a backend is among those who left a row. */
static __always_inline int is_former(__u64 former, __u32 backend)
{
	int is = 0;

#pragma unroll
	for (int i = 0; i < HISTORY; i++)
		is |= (former >> (16 * i) & 0xffff) == backend;
	return is;
}

/* send_list goes on with the program that sends a packet along the list. */
static __always_inline int send_list(struct xdp_md *ctx, const struct packet *p, const union address *source,
				     const struct asked *a, __u64 hash)
{
	struct scratch *own = a->own;

	own->packet = *p;
	own->source = *source;
	own->choice.hash = hash;
	bpf_tail_call(ctx, &steps, STEP_LIST);
	return count(DROPPED_STRAY, XDP_DROP);
}

/* balancer_list sends the scratch's packet along its list. */
SEC("xdp.frags")
int balancer_list(struct xdp_md *ctx)
{
	struct scratch *own = scratch_of_cpu();
	struct segments *list;
	struct backend *first;
	struct packet p;
	__u64 hash;

	if (!own)
		return count(DROPPED_STRAY, XDP_DROP);
	first = bpf_map_lookup_elem(&backends, &own->first);
	if (!first)
		return count(DROPPED_BACKEND, XDP_DROP);
	if (own->packet.length + overhead(own->n) > first->hop.mtu && first->hop.ifindex)
		return too_big(ctx, &first->hop);
	list = (void *)own->list;
	p = own->packet;
	hash = own->choice.hash;
	switch (own->n) {
	case 1:
		return encapsulate(ctx, &p, &own->source, hash, list, 1, &first->hop);
	case 2:
		return encapsulate(ctx, &p, &own->source, hash, list, 2, &first->hop);
	case 3:
		return encapsulate(ctx, &p, &own->source, hash, list, 3, &first->hop);
	case 4:
		return encapsulate(ctx, &p, &own->source, hash, list, 4, &first->hop);
	case 5:
		return encapsulate(ctx, &p, &own->source, hash, list, 5, &first->hop);
	case 6:
		return encapsulate(ctx, &p, &own->source, hash, list, 6, &first->hop);
	}
	return count(DROPPED_STRAY, XDP_DROP);
}

#endif
