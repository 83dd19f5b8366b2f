/* SPDX-License-Identifier: GPL-2.0 */
/* What user space and the program of the replies share. The agent's process is the only
 * writer of settings and vips.
 */
#ifndef RAZOR_REPLY_H
#define RAZOR_REPLY_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "srv6.h"

#define MAX_VIPS 16384
#define MAX_GATEWAYS 64

struct setting {
	struct domain domain;
	__u16 mss4;	/* largest segment that clients are told of; 0: as the kernel says */
	__u16 mss6;
	__u32 gateways; /* that replies go by; 0: they go straight to clients */
};
_Static_assert(sizeof(struct setting) == 32, "setting");
_Static_assert(__builtin_offsetof(struct setting, gateways) == 28, "setting.gateways");

/* reason is what became of a packet whose source is a VIP, where something did. */
enum reason {
	CLAMPED,	 /* told of a smaller segment; it goes on */
	RETURNED,	 /* sent to a gateway */
	DROPPED_TOO_BIG, /* with the outer header, for the interface */
	DROPPED_ROOM,	 /* the outer header could not be put before it */
	UNREAD,		 /* it was to go by a gateway, and went straight on: not understood */
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setting);
} settings SEC(".maps");

/* gateways are SIDs, as many as the setting says. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_GATEWAYS);
	__type(key, __u32);
	__type(value, union sid);
} gateways SEC(".maps");

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

static __always_inline int count(__u32 reason, int verdict)
{
	__u64 *n = bpf_map_lookup_elem(&reasons, &reason);

	if (n)
		(*n)++;
	return verdict;
}

#endif
