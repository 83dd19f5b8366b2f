/* SPDX-License-Identifier: GPL-2.0 */
/* What user space and the program of the replies share. The agent's process is the only
 * writer of settings and vips.
 */
#ifndef RAZOR_REPLY_H
#define RAZOR_REPLY_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "parse.h"

#define MAX_VIPS 16384

struct setting {
	__u16 mss4; /* largest segment that clients are told of; 0: as the kernel says */
	__u16 mss6;
};
_Static_assert(sizeof(struct setting) == 4, "setting");

/* reason is what became of a packet whose source is a VIP, where something did. */
enum reason {
	CLAMPED, /* told of a smaller segment */
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setting);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union address);
	__type(value, __u8);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&reasons, &reason);

	if (n)
		(*n)++;
}

#endif
