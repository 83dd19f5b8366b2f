/* SPDX-License-Identifier: GPL-2.0 */
/* Which backends a packet of a VIP goes to. */
#ifndef RAZOR_STEER_H
#define RAZOR_STEER_H

#include "maps.h"

#define NEXT_SLOTS 8 /* that are looked through for a slot's second backend */

/* find_key finds the VIP of a key. What stands aside is for packets without ports. */
static __always_inline struct vip *find_key(const struct vip_key *k, int aside)
{
	struct vip *v = bpf_map_lookup_elem(&vips, k);

	return v && v->flags & VIP_ASIDE && !aside ? NULL : v;
}

/* find_exact finds the VIP of an address or a prefix: by port and protocol, by
 * protocol, by address alone.
 */
static __always_inline struct vip *find_exact(const struct vip_key *of, __u32 lookups, int aside)
{
	struct vip_key k = *of;
	struct vip *v = find_key(&k, aside);

	k.port = 0;
	if (!v && lookups & LOOKUP_ANY_PORT)
		v = find_key(&k, aside);
	k.protocol = 0;
	if (!v && lookups & LOOKUP_ANY_PROTOCOL)
		v = find_key(&k, aside);
	return v;
}

/* find_vip finds the VIP of a packet: of the address itself before that of a prefix
 * that it is in. Without ports, port is 0 and aside is set.
 */
static __always_inline struct vip *find_vip(const struct host *h, const union address *a, __be16 port,
					    __u8 protocol, int aside)
{
	struct vip_key k = {.address = *a, .port = port, .protocol = protocol, .length = 128};
	struct vip *v = find_exact(&k, h->lookups, aside);

	if (!v && h->lookups & LOOKUP_PREFIX) {
		struct prefix_key by_address = {.length = 128, .address = *a};
		struct prefix_key *found = bpf_map_lookup_elem(&prefixes, &by_address);

		if (found) {
			k.address = found->address;
			k.length = found->length;
			v = find_exact(&k, h->lookups, aside);
		}
	}
	return v;
}

/* hash_of is the hash of a client's flow with a service. */
static __always_inline __u64 hash_of(const struct service *s, const union address *client, __be16 client_port,
				     __be16 port, __u8 protocol)
{
	struct flow f = {
		.key = {s->key[0], s->key[1]},
		.address = {client->halves[0], client->halves[1]},
	};

	if (!(s->flags & SERVICE_FRAGMENTS)) {
		f.source_port = client_port;
		f.destination_port = port;
		f.protocol = protocol;
	}
	return flow_hash(&f);
}

/* valid tells whether a client sends such flags: a SYN+ACK is a server's. */
static __always_inline int valid(__u8 flags)
{
	__u8 kind = flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);

	return kind == TCP_SYN || (!(kind & TCP_SYN) && kind & (TCP_ACK | TCP_RST));
}

/* row_at is the row of a slot. */
static __always_inline __u32 row_at(const struct table *t, __u32 slot)
{
	return slot < TABLE_SLOTS ? *(volatile const __u32 *)&t->rows[slot] : 0;
}

/* second_of is the backend of the next slot that has another one, 0 if none of the
 * next few has.
 */
static __always_inline __u32 second_of(const struct table *t, __u32 slot, __u32 current)
{
#pragma unroll
	for (int i = 0; i < NEXT_SLOTS; i++) {
		__u32 other;

		slot = slot + 1 < TABLE_SLOTS ? slot + 1 : 0;
		other = ROW_CURRENT(row_at(t, slot));
		if (other && other != current)
			return other;
	}
	return 0;
}

/* embedded is the flow that a packet is of, or that an error speaks of. */
struct embedded {
	union address client;
	union address vip;
	__be16 port; /* of the VIP */
	__be16 client_port;
	__u8 protocol;
	__u8 spare[3]; /* no hole: the verifier looks at all bytes that a function is given */
};

/* step is a program for what is rare. */
enum step {
	STEP_OPEN,    /* a packet to a SID of this gateway */
	STEP_MISS,    /* a packet that nobody in its list owned */
	STEP_ICMP,    /* ICMP to a VIP */
	STEP_TOO_BIG, /* a packet that does not fit once it is encapsulated */
	STEP_PINNED,  /* a packet of a flow with a pin */
	STEP_SPILLED, /* a packet of a slot whose new flows go to another site */
	STEP_ENTRY,   /* a packet of another site's gateway */
	STEP_QUIC,    /* a packet that may have a server ID */
	STEP_LOST,    /* a packet of TCP whose row has nobody */
	STEP_LIST,    /* a packet along the scratch's list */
	STEP_PATH,    /* ICMP about a packet of ours */
	STEP_RETURN,  /* what a backend answers to a client */
	STEP_TRACED,  /* all, while somebody traces */
	STEPS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

static __always_inline struct host *this_host(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* note counts a packet, and what it counts for of flows. */
static __always_inline struct traffic *note(void *map, __u32 number, __u32 bytes, const struct choice *c)
{
	struct traffic *t = bpf_map_lookup_elem(map, &number);

	if (t) {
		t->packets++;
		t->bytes += bytes;
		t->new_flows += c->new_flows;
		t->old_flows += c->old_flows;
	}
	return t;
}

#endif
