/* SPDX-License-Identifier: GPL-2.0 */
/* Sending a packet along a list of any length, which is made in the scratch. */
#ifndef RAZOR_LIST_H
#define RAZOR_LIST_H

#include "send.h"

/* asked is a list in the making. */
struct asked {
	struct scratch *own;
	__u32 n;
	__u32 most;
	__u32 first;  /* backend of the list */
	__u32 not[4]; /* who need not be asked */
};

/* ask puts a backend at the end of a list if there is a way to it, and room. */
static __always_inline void ask(struct asked *a, __u32 backend)
{
	struct backend *b;

	if (!backend || backend == a->not[0] || backend == a->not[1] || backend == a->not[2] ||
	    backend == a->not[3] || a->n >= a->most)
		return;
	b = bpf_map_lookup_elem(&backends, &backend);
	if (!b || !b->hop.ifindex)
		return;
	a->own->list[a->n & 7] = b->sid;
	if (!a->n)
		a->first = backend;
	a->n++;
}

/* ask_former asks those who left the row of a slot. */
static __always_inline void ask_former(struct asked *a, const struct histories *of, __u32 slot)
{
	__u64 former = slot < TABLE_SLOTS ? *(volatile const __u64 *)&of->former[slot] : 0;

#pragma unroll
	for (int i = 0; i < HISTORY; i++)
		ask(a, former >> (16 * i) & 0xffff);
}

/* send_list sends a packet along n segments of the scratch. */
static __always_inline int send_list(struct xdp_md *ctx, const struct packet *p, const union address *source,
				     struct scratch *own, __u64 hash, __u32 n, const struct hop *hop)
{
	struct segments *list = (void *)own->list;

	if (p->length + overhead(n) > hop->mtu && hop->ifindex)
		return too_big(ctx, hop);
	switch (n) {
	case 1:
		return encapsulate(ctx, p, source, hash, list, 1, hop);
	case 2:
		return encapsulate(ctx, p, source, hash, list, 2, hop);
	case 3:
		return encapsulate(ctx, p, source, hash, list, 3, hop);
	case 4:
		return encapsulate(ctx, p, source, hash, list, 4, hop);
	case 5:
		return encapsulate(ctx, p, source, hash, list, 5, hop);
	case 6:
		return encapsulate(ctx, p, source, hash, list, 6, hop);
	}
	return count(DROPPED_STRAY, XDP_DROP);
}

/* send_asked sends a packet along a list that has somebody in it. */
static __always_inline int send_asked(struct xdp_md *ctx, const struct packet *p, const union address *source,
				      const struct asked *a, __u64 hash)
{
	__u32 index = a->first;
	struct backend *first = bpf_map_lookup_elem(&backends, &index);

	if (!first)
		return count(DROPPED_BACKEND, XDP_DROP);
	return send_list(ctx, p, source, a->own, hash, a->n, &first->hop);
}

#endif
