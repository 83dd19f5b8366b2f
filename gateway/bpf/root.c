// SPDX-License-Identifier: GPL-2.0
/* The root program of an interface: the first slot that is filled goes first. */
#include "include/slots.h"

char _license[] SEC("license") = "GPL";

SEC("xdp.frags")
int root(struct xdp_md *ctx)
{
	return next_slot(ctx, SLOT_ENDPOINT - 1);
}
