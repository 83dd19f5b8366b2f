/* SPDX-License-Identifier: GPL-2.0 */
/* Several programs on one interface: the root program calls the first slot that
 * is filled, and every program calls the next one for what is not its own.
 */
#ifndef RAZOR_SLOTS_H
#define RAZOR_SLOTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum slot {
	SLOT_ENDPOINT,
	SLOT_BALANCER,
	SLOT_DNS,
	SLOTS,
};

/* slots is one map for each interface: the loader puts the pinned one in its place. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* next_slot hands a packet on that is not for the program in a slot. */
static __always_inline int next_slot(struct xdp_md *ctx, int after)
{
	if (after < SLOT_ENDPOINT)
		bpf_tail_call(ctx, &slots, SLOT_ENDPOINT);
	if (after < SLOT_BALANCER)
		bpf_tail_call(ctx, &slots, SLOT_BALANCER);
	if (after < SLOT_DNS)
		bpf_tail_call(ctx, &slots, SLOT_DNS);
	return XDP_PASS;
}

#endif
