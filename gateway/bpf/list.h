/* SPDX-License-Identifier: GPL-2.0 */
/* Sending a packet along a list of any length, which is made in the scratch. */
#ifndef RAZOR_LIST_H
#define RAZOR_LIST_H

#include "send.h"

/* send_list sends a packet along a list of the scratch. */
static __always_inline int send_list(struct xdp_md *ctx, const struct packet *p, const struct host *h,
				     struct scratch *own, __u64 hash, __u8 round, __u32 n, const struct hop *hop)
{
	struct segments *list = (void *)own->list;

	if (p->length + overhead(n) > hop->mtu && hop->ifindex)
		return too_big(ctx, hop);
	switch (n) {
	case 1:
		return encapsulate(ctx, p, h, hash, round, list, 1, hop);
	case 2:
		return encapsulate(ctx, p, h, hash, round, list, 2, hop);
	case 3:
		return encapsulate(ctx, p, h, hash, round, list, 3, hop);
	case 4:
		return encapsulate(ctx, p, h, hash, round, list, 4, hop);
	case 5:
		return encapsulate(ctx, p, h, hash, round, list, 5, hop);
	case 6:
		return encapsulate(ctx, p, h, hash, round, list, 6, hop);
	}
	return count(DROPPED_STRAY, XDP_DROP);
}

#endif
