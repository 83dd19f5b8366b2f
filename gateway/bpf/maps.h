/* SPDX-License-Identifier: GPL-2.0 */
/* What user space and the balancer's program share. The gateway's process is the
 * only writer of all but counters, pins' ages, which flows are looked at (flows.h) and
 * what a trace needs (trace.h). LAYOUT changes with any struct. The next program copies
 * what is in the maps by the names of fields, and of the reasons: what means something
 * else gets another name; "spare" is not copied.
 */
#ifndef RAZOR_MAPS_H
#define RAZOR_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "include/flow.h"
#include "include/srv6.h"

#define LAYOUT 10

#define MIN_MTU 1280 /* RFC 8200 §5 */

#define SECOND 1000000000ull /* ns */

#define MAX_VIPS 1024
#define MAX_SERVICES 256
#define MAX_BACKENDS 32768 /* index 0 is none */
#define MAX_PINS 65536

/* vip_key is a VIP: most exact first is looked for. */
struct vip_key {
	union address address;
	__be16 port;	/* 0 is any */
	__u8 protocol;	/* 0 is any; ICMP's is there for each address with VIPs */
	__u8 length;	/* of the prefix, counted in 128 bits */
} __attribute__((packed, aligned(4)));
_Static_assert(sizeof(struct vip_key) == 20, "vip_key");

#define VIP_ASIDE 1 /* for what has no ports: fragments, and ICMP to the address */

struct vip {
	__u16 service;
	__u16 number; /* of its counters */
	__u32 flags;
};
_Static_assert(sizeof(struct vip) == 8, "vip");

/* prefix_key is where the prefixes of VIPs are looked for by address. */
struct prefix_key {
	__u32 length;
	union address address;
} __attribute__((packed, aligned(4)));
_Static_assert(sizeof(struct prefix_key) == 20, "prefix_key");

#define SERVICE_FRAGMENTS 1 /* hashed by the client alone: all that it sends to one backend */
#define SERVICE_QUIC 2	    /* by connection ID, where that names a backend */

#define SERVICE_NAME 44
#define MAX_SPILLS 4 /* sites that a service spills to at a time */

/* spill is whose the new flows are of the slots with the ranks below end, and not below
 * the end of the spill before.
 */
struct spill {
	__u32 end;
	__u32 site;
};
_Static_assert(sizeof(struct spill) == 8, "spill");

struct service {
	__u64 key[2]; /* of the hash */
	__u16 flags;
	__u8 rotation;	/* of connection IDs that have a server ID */
	__u8 server_id; /* length of that, in bytes */
	__u32 spilled; /* slots whose new flows go to other sites: the end of the last spill */
	struct spill spills[MAX_SPILLS];
	char name[SERVICE_NAME]; /* for the next process of user space; empty: none */
	__u32 spare;
};
_Static_assert(sizeof(struct service) == 104, "service");

#define MAX_SITES 64 /* others */
#define SITE_GATEWAYS 8

/* site is another site: indices of backends that are entries of its gateways, each as
 * often as its share is. 0 is none.
 */
struct site {
	__u32 entries[SITE_GATEWAYS];
	__u32 next; /* the first site from this one on that there is a way to */
};
_Static_assert(sizeof(struct site) == 36, "site");

struct table {
	__u32 rows[TABLE_SLOTS];
	__u32 spare;
};
_Static_assert(sizeof(struct table) == 4 * (TABLE_SLOTS + 1), "table");

struct histories {
	__u64 former[TABLE_SLOTS]; /* HISTORY backends each */
};
_Static_assert(sizeof(struct histories) == 8 * TABLE_SLOTS, "histories");

/* hop is how a packet leaves for the next router. */
struct hop {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 ifindex; /* 0: not resolved */
	__u16 vlan;    /* 0: no tag */
	__u16 mtu;     /* of the path, outer packet */
};
_Static_assert(sizeof(struct hop) == 20, "hop");

struct backend {
	union sid sid; /* hunt, or entry of another site's gateway */
	struct hop hop;
	__u32 found; /* there was a way to it once */
};
_Static_assert(sizeof(struct backend) == 40, "backend");

#define MAX_SERVERS 65536
#define MAX_SERVER_ID 15 /* bytes */

/* server_key is a backend of a service as the server there calls itself in connection
 * IDs of QUIC.
 */
struct server_key {
	__u32 service;
	__u8 id[MAX_SERVER_ID + 1]; /* behind its length: 0 */
};
_Static_assert(sizeof(struct server_key) == 20, "server_key");

/* pin_key is a flow, from the client's side. */
struct pin_key {
	union address client;
	union address vip;
	__be16 client_port;
	__be16 vip_port;
	__u8 protocol;
	__u8 spare[3];
};
_Static_assert(sizeof(struct pin_key) == 40, "pin_key");

#define PIN_IDLE 600	/* s: a pin that was not used for so long is none */
#define PIN_CLOSING 60	/* s: once a FIN or RST has passed */

/* pin is who has a flow, whatever the row of its slot says. */
struct pin {
	__u32 backend;
	__u32 slot;
	__u32 used; /* when a packet of the flow came last, s of the monotonic clock */
	__u16 service;
	__u16 closing; /* a FIN or RST has passed */
};
_Static_assert(sizeof(struct pin) == 16, "pin");

struct traffic {
	__u64 packets;
	__u64 bytes; /* of IP packets as they came */
	__u64 new_flows;
	__u64 old_flows; /* each once in a second in which it had a packet */
};
_Static_assert(sizeof(struct traffic) == 32, "traffic");

/* seen is when a flow of each slot had a packet last, s of the monotonic clock. */
#define SEEN_SLOTS (1 << 18)

struct seen {
	__u32 second; /* that looks are counted in */
	__u32 looks;
	__u32 at[SEEN_SLOTS];
};
_Static_assert(sizeof(struct seen) == 8 + 4 * SEEN_SLOTS, "seen");

/* smaller is that a router found a packet of ours too big for its next link. */
#define SMALLER_QUOTE 256 /* has all headers of ours, and the ports of the packet inside */

struct smaller {
	__u32 mtu;
	__u8 quote[SMALLER_QUOTE]; /* of the packet, from the outer header on */
};
_Static_assert(sizeof(struct smaller) == 260, "smaller");

/* reason is what became of a packet that was the balancer's. */
enum reason {
	SENT,
	STEERED_ERROR,	  /* an ICMP error to the backend of its flow */
	STEERED_MISS,	  /* a packet that nobody in its list owned, to others */
	STEERED_AWAY,	  /* likewise, to another site */
	SPILLED,	  /* a packet of a new flow to another site */
	ENTERED,	  /* a packet of another site's gateway, to backends here */
	GIVEN_BACK,	  /* likewise, back to it, as there is nobody here */
	RETURNED,	  /* what a backend answers, to the kernel, on its way to the client */
	ANSWERED_ECHO,
	ANSWERED_TOO_BIG,
	HEARD_SMALLER,	  /* a router found a packet of ours too big: user space knows */
	DROPPED_OUTSIDER, /* a SID or an SRH from outside of the SR domain */
	DROPPED_MALFORMED,
	DROPPED_FLAGS,	  /* TCP flags that no client sends */
	DROPPED_FRAGMENT, /* of a service that does not take them */
	DROPPED_HOPS,	  /* hop limit used up */
	DROPPED_BACKEND,  /* none for the slot */
	DROPPED_NEIGHBOUR, /* next hop not resolved */
	DROPPED_TOO_BIG,  /* and nobody to tell, or too many told */
	DROPPED_ROOM,	  /* no headroom in the frame */
	DROPPED_STRAY,	  /* a miss that is nobody's any more */
	DROPPED_BUDGET,	  /* a miss beyond what other sites are asked for */
	DROPPED_SMALLER,  /* like HEARD_SMALLER, too many, or nobody listens */
	DROPPED_ECHO,	  /* too many were answered */
	DROPPED_RELAY,	  /* to be returned, and no answer of a VIP to a client */
	DROPPED_CONGESTED, /* congestion marked on what knows no such mark */
	REASONS,
};

/* reason_count is how many packets had a reason. The empty array has the kernel keep the
 * names of the reasons with the map: its key may be no enum.
 */
struct reason_count {
	__u64 packets;
	enum reason names[0];
};
_Static_assert(sizeof(struct reason_count) == 8, "reason_count");

/* host is what the program has to know of its host. */
struct host {
	struct domain domain;
	union sid source; /* of what it sends, round and entropy 0 */
	__u32 lookups;	  /* kinds of VIPs there are */
	__u32 sites;	  /* others, from 0 */
	__u32 traced;	  /* who traces sets it, and the program clears it when nobody does */
	__u32 patient;	  /* s of the monotonic clock: until then nobody is told that a flow is none */
	__u32 sample;	  /* old flows are looked at that have none of these bits in the hash */
	__u32 spare;
};
_Static_assert(sizeof(struct host) == 64, "host");

#define BUDGET_INTERVAL 100000000 /* ns */

/* budget is what of the misses goes to other sites. A flow that missed a moment ago may
 * have all of it, another one half.
 */
struct budget {
	__u64 interval;
	__u64 used;
	__u64 most; /* packets in an interval */
};
_Static_assert(sizeof(struct budget) == 24, "budget");

/* A fingerprint is when a flow missed last: 24 bits of its hash, and 8 of the second. */
#define FINGERPRINT_AGE 4 /* s */
#define FINGERPRINT_BLOCKS (1 << 18)
#define FINGERPRINTS 16

struct fingerprints {
	__u32 of[FINGERPRINTS];
};
_Static_assert(sizeof(struct fingerprints) == 64, "fingerprints");

#define LOOKUP_ANY_PORT 1
#define LOOKUP_ANY_PROTOCOL 2
#define LOOKUP_PREFIX 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE); /* its words have two writers */
	__type(key, __u32);
	__type(value, struct host);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * MAX_VIPS);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_VIPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, struct prefix_key); /* the prefix itself */
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* The number of tables is the loader's to choose: as many as there may be services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct histories);
} histories SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SITES);
	__type(key, __u32);
	__type(value, struct site);
} sites SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FINGERPRINT_BLOCKS);
	__type(key, __u32);
	__type(value, struct fingerprints);
} missed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct server_key);
	__type(value, __u32); /* backend */
} servers SEC(".maps");

/* User space alone makes pins; a full map forgets one that was not used lately. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PINS);
	__type(key, struct pin_key);
	__type(value, struct pin);
} pins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} smaller_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, struct reason_count);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_VIPS);
	__type(key, __u32);
	__type(value, struct traffic);
} vip_traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct traffic);
} backend_traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

/* choice is whom a packet goes to: owner, if a pin names one that is not current, then
 * current, then other, if there is one.
 */
struct choice {
	__u64 hash;
	__u32 current;
	__u32 other;
	__u32 owner;
	__u32 marked; /* pins have flows of the slot */
	__u32 new_flows; /* that the packet counts for */
	__u32 old_flows;
};

/* limit counts what a CPU did in an interval. */
struct limit {
	__u64 interval;
	__u64 done;
};

/* scratch is what one step leaves to the next one, and what does not fit a stack. */
struct scratch {
	struct limit told;    /* ICMP errors of ours */
	struct limit echoed;  /* echoes answered */
	struct limit smaller; /* those of routers that user space hears of */
	struct choice choice; /* of a flow with a pin, one of QUIC, or one that may spill */
	__u32 service;	      /* of the choice */
	__u32 mtu;	      /* of the path that a packet is too big for */
	struct packet packet; /* that was opened, or is to be sent along the list */
	struct outer outer;
	union address source;
	__u32 n;	      /* segments of the list */
	__u32 first;	      /* the backend that it begins with */
	union sid list[8];    /* MAX_SEGMENTS are used */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline int count(__u32 reason, int verdict)
{
	struct reason_count *n = bpf_map_lookup_elem(&reasons, &reason);

	if (n)
		n->packets++;
	return verdict;
}

#endif
