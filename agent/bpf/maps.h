/* SPDX-License-Identifier: GPL-2.0 */
/* What user space and the endpoint's program share. The agent's process is the only
 * writer of domain, targets and vips.
 */
#ifndef RAZOR_ENDPOINT_MAPS_H
#define RAZOR_ENDPOINT_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "srv6.h"

#define MAX_TARGETS 1024
#define MAX_VIPS 16384 /* of all targets together */
#define MAX_GATEWAYS 64 /* of the site */
#define MAX_FLOWS 8192 /* that were told of and are remembered */

#define LEVEL_WARNING 2

/* target is what a SID names: the host or one of its containers. */
struct target {
	__u8 destination[ETH_ALEN]; /* of the container's end of its veth */
	__u8 source[ETH_ALEN];	    /* of the host's end */
	__u32 ifindex;		    /* of the host's end; 0: the host itself */
	__s32 netns;		    /* as the host numbers it; CURRENT for the host itself */
	__u8 present;
	__u8 level;   /* of its load: 1 normal, 2 warning, 3 critical */
	__u16 packet; /* largest that it may send, which clients' SYNs tell it; 0: any */
};
_Static_assert(sizeof(struct target) == 24, "target");
_Static_assert(__builtin_offsetof(struct target, source) == ETH_ALEN, "target.source");
_Static_assert(__builtin_offsetof(struct target, present) == 20, "target.present");

/* vip_key is an address that a target ends flows of. */
struct vip_key {
	union address address;
	__u32 target;
	__u32 spare;
};
_Static_assert(sizeof(struct vip_key) == 24, "vip_key");

/* conversation is a flow of TCP, from the client's side. */
struct conversation {
	union address client;
	union address vip;
	__be16 client_port;
	__be16 vip_port;
	__u32 spare;
};
_Static_assert(sizeof(struct conversation) == 40, "conversation");

/* event is a flow that was found elsewhere than its row says. */
struct event {
	union sid source; /* of the gateway that had the packet first */
	struct conversation flow;
	__u16 target;
	__u8 segment; /* of the list, in the order of the path: 0 is the first */
	__u8 protocol;
	__u32 spare;
};
_Static_assert(sizeof(struct event) == 64, "event");
_Static_assert(__builtin_offsetof(struct event, target) == 56, "event.target");

struct handled {
	__u64 taken;
	__u64 handed_on;
	__u64 bounced;
};
_Static_assert(sizeof(struct handled) == 24, "handled");

/* accepted is how many connections began at a target, by who had their packets first. */
struct accepted {
	__u64 own;    /* gateways of the site, which heard has */
	__u64 guests; /* others */
};
_Static_assert(sizeof(struct accepted) == 16, "accepted");

/* reason is what became of a packet that was the endpoint's, and why. */
enum reason {
	TAKEN_FINAL,	 /* the SID said so */
	TAKEN_SOCKET,	 /* by the socket of a connection */
	TAKEN_REQUEST,	 /* by a connection half open, whose SYN+ACK it answers */
	TAKEN_COOKIE,	 /* by a listener, for its valid SYN cookie */
	TAKEN_TIME_WAIT, /* by a connection that ended */
	TAKEN_SYN,	 /* by a listener */
	TAKEN_ERROR,	 /* ICMP error, by the socket it is about */
	TAKEN_UNHUNTED,	 /* not of TCP: nothing says whose it is but the list */
	TAKEN_STRAY,	 /* nobody's, and its sender takes no misses */
	HANDED_ON,
	BOUNCED,
	DROPPED_OUTSIDER,  /* a SID or an SRH from outside of the SR domain */
	DROPPED_MALFORMED,
	DROPPED_TARGET,	   /* no such target */
	DROPPED_SEGMENTS,  /* segments left at a final SID, or the next is outside */
	DROPPED_VIP,	   /* inside is a packet to no VIP of the target */
	DROPPED_HOPS,	   /* hop limit used up */
	DROPPED_CONGESTED, /* congestion marked on what knows no such mark */
	DROPPED_ROOM,	   /* the headers could not be taken off */
	EVENT_LOST,	   /* nobody read them in time */
	REASONS,
};

/* domain is all 0 until the agent knows it: nothing is the endpoint's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct domain);
} domains SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct vip_key);
	__type(value, __u8);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct handled);
} handled_by SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct accepted);
} accepted_by SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

/* told is when the agent was last told of a flow, in ns. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct conversation);
	__type(value, __u64);
} told SEC(".maps");

/* heard is when a gateway of the site, by its locator, last sent something, in ns; kept
 * where answers go by gateways.
 * User space says which ones there are.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_GATEWAYS);
	__type(key, __be64);
	__type(value, __u64);
} heard SEC(".maps");

static __always_inline int count(__u32 reason, int verdict)
{
	__u64 *n = bpf_map_lookup_elem(&reasons, &reason);

	if (n)
		(*n)++;
	return verdict;
}

#endif
