/* SPDX-License-Identifier: GPL-2.0 */
/* Segment routing over IPv6: SIDs, the segment routing header (RFC 8754), and the
 * closed domain.
 *
 * A SID is locator : behaviour : target : round : entropy. The behaviour and the
 * target are its function (RFC 8986 §3.1), the rest is its argument, which does not
 * count when SIDs are compared.
 */
#ifndef RAZOR_SRV6_H
#define RAZOR_SRV6_H

#include <linux/types.h>
#include "parse.h"

#define MAX_SEGMENTS 6
#define MAX_OVERHEAD (40 + 8 + 16 * MAX_SEGMENTS) /* bytes that an encapsulation adds */

/* Behaviours, which no address that a host gives itself has at this place. */
enum behaviour {
	SID_HUNT = 0x5201,  /* End.DT46 for the owner of the flow, else End */
	SID_FINAL = 0x5202, /* End.DT46 (RFC 8986 §4.8) */
	SID_ENTRY = 0x5203, /* of a gateway: packets of another site's gateway */
	SID_MISS = 0x5204,  /* of a gateway: packets that nobody in the list owned */
	SID_SOURCE = 0x5205, /* outer source of what a gateway or a host sends, no SID */
	SID_RETURN = 0x5206, /* of a gateway: End.DT46 for what backends answer to clients */
};

union sid {
	union address address;
	struct {
		__be64 locator;
		__be16 behaviour;
		__be16 target; /* of a host: 0 is itself, else one of its containers */
		__u8 round;    /* that a miss of this packet begins */
		__u8 entropy[3];
	};
};
_Static_assert(sizeof(union sid) == 16, "sid");
_Static_assert(__builtin_offsetof(union sid, target) == 10, "sid.target");
_Static_assert(__builtin_offsetof(union sid, round) == 12, "sid.round");

/* ROUND_ENTERED is in the round of an outer source once a packet has entered another site:
 * who takes it there has a flow that its first gateway does not send there by itself.
 */
#define ROUND_ENTERED 0x80

/* with_round is a gateway's outer source with some bits set in its round. */
static __always_inline union address with_round(const union address *source, __u8 bits)
{
	union address a = *source;

	a.halves[1] |= (__u64)bits << 32;
	return a;
}

/* make_final changes the function of a SID, in the half that it is in (see copy_address). */
static __always_inline void make_final(union sid *s)
{
	s->address.halves[1] = (s->address.halves[1] & ~(__be64)0xffff) | bpf_htons(SID_FINAL);
}

/* The segment routing header (RFC 8754 §2) without its list. */
struct srh {
	__u8 next;
	__u8 length; /* in 8 octets, without the first 8 */
	__u8 type;
	__u8 left;
	__u8 last; /* index of the list's last entry, which is the path's first */
	__u8 flags;
	__be16 tag;
};
_Static_assert(sizeof(struct srh) == 8, "srh");

/* The SR domain: addresses that only its own hosts have (RFC 8754 §5.1). */
struct domain {
	__be64 locator;	   /* of this host */
	__be64 block;	   /* of all locators */
	__be64 block_mask; /* its length, 64 bits at most */
};
_Static_assert(sizeof(struct domain) == 24, "domain");

/* in_domain tells whether an address is in the block of the SR domain. */
static __always_inline int in_domain(const struct domain *d, const union address *a)
{
	return (a->halves[0] & d->block_mask) == d->block;
}

/* behaviour_of is the behaviour that this host is asked for by an address, or 0. */
static __always_inline __u32 behaviour_of(const struct domain *d, const union address *a)
{
	const union sid *s = (const void *)a;
	__u32 b;

	if (s->locator != d->locator)
		return 0;
	b = bpf_ntohs(s->behaviour);
	return b >= SID_HUNT && b <= SID_RETURN ? b : 0;
}

/* outer is where the parts of an encapsulated packet are, in bytes from the start
 * of the frame.
 */
struct outer {
	__u32 l3;
	__u32 srh;    /* 0 without one: a list of one segment (H.Encaps.Red) */
	__u32 inner;  /* of the packet that was encapsulated */
	__u32 left;   /* Segments Left; 0 without an SRH */
	__u32 length; /* bytes of the list */
	__u8 next;    /* IPPROTO_IPV6 or IPPROTO_IPIP */
};

/* parse_outer reads an encapsulated packet whose IPv6 header was parsed. A list is
 * whole or reduced (RFC 8754 §4.1.1), has at most MAX_SEGMENTS and nothing behind
 * it: nobody in the domain adds TLVs. It returns 0, or -1 where that is not so.
 */
static __always_inline int parse_outer(struct outer *o, __u32 l3, void *data, void *end)
{
	struct ipv6hdr *ip = data + within(l3);
	struct srh *srh = (void *)(ip + 1);

	if ((void *)(srh + 1) > end)
		return -1;
	o->l3 = l3;
	o->srh = o->left = o->length = 0;
	o->next = ip->nexthdr;
	o->inner = l3 + sizeof(*ip);
	if (ip->nexthdr == IPPROTO_ROUTING) {
		if (srh->type != IPV6_ROUTING_TYPE_SR || srh->last >= MAX_SEGMENTS ||
		    srh->length != 2 * (srh->last + 1) || srh->left > srh->last + 1)
			return -1;
		o->srh = l3 + sizeof(*ip);
		o->left = srh->left;
		o->length = 8 * srh->length;
		o->next = srh->next;
		o->inner += sizeof(*srh) + o->length;
	}
	return o->next == IPPROTO_IPV6 || o->next == IPPROTO_IPIP ? 0 : -1;
}

/* parse_inner reads the packet inside, which has to fit into the outer one. */
static __always_inline enum parsed parse_inner(struct packet *inner, const struct packet *outer,
					       const struct outer *o, void *data, void *end)
{
	__u32 room = outer->l3 + outer->length - o->inner;

	if (o->inner > outer->l3 + outer->length)
		return MALFORMED;
	inner->l3 = o->inner;
	return o->next == IPPROTO_IPV6 ? parse_ipv6(NULL, inner, data, end, room) :
					 parse_ipv4(NULL, inner, data, end, room);
}

#endif
