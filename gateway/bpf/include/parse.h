/* SPDX-License-Identifier: GPL-2.0 */
/* What a packet says of itself: Ethernet, at most one VLAN tag, IPv4 or IPv6 with
 * a bounded chain of extension headers (RFC 8200 §4), and the start of TCP, UDP
 * or ICMP.
 */
#ifndef RAZOR_PARSE_H
#define RAZOR_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_EXTENSIONS 4 /* headers of a chain that are followed */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* An address: IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2), in network order. */
union address {
	__u8 bytes[16];
	__be32 words[4];
	__be64 halves[2];
};
_Static_assert(sizeof(union address) == 16, "address");

/* is_mapped tells whether an address is one of IPv4. */
static __always_inline int is_mapped(const union address *a)
{
	return a->halves[0] == 0 && a->words[2] == bpf_htonl(0xffff);
}

/* copy_address copies an address in two pieces, at most: what is written in smaller ones
 * than it is read in has to reach the cache first.
 */
static __always_inline void copy_address(void *to, const void *from)
{
	typedef __be64 __attribute__((may_alias)) half;
	half *t = to;
	const half *f = from;

	t[0] = f[0];
	t[1] = f[1];
}

/* mapped is an IPv4 address. */
static __always_inline union address mapped(__be32 a)
{
	union address m = {.halves = {0, (__be64)a << 32 | bpf_htonl(0xffff)}};

	return m;
}

enum fragment {
	WHOLE,
	FIRST_FRAGMENT,
	LATER_FRAGMENT,
};

/* What parse found. Offsets are from the start of the frame. */
struct packet {
	union address source;
	union address destination;
	__be16 source_port;	 /* 0 without ports; identifier of an echo */
	__be16 destination_port;
	__u32 l3;	/* offset of the IP header */
	__u32 l4;	/* offset of what the IP header and its extensions carry */
	__u32 length;	/* bytes from l3 to the end of the IP packet */
	__u8 family;	/* AF_INET or AF_INET6 */
	__u8 protocol;
	__u8 class;	/* traffic class, or type of service */
	__u8 hops;	/* hop limit, or time to live */
	__u8 flags;	/* of TCP */
	__u8 fragment;
	__u8 routing;	/* has a segment routing header (RFC 8754) */
	__u8 type;	/* of ICMP */
};

#define AF_INET 2
#define AF_INET6 10

/* within is an offset that was computed and kept, with a bound that the verifier
 * sees. All that parse makes are below it.
 */
static __always_inline __u32 within(__u32 offset)
{
	barrier_var(offset);
	return offset & 0x3fff;
}

enum parsed {
	PARSED,
	NOT_IP,	   /* ARP, a second VLAN tag, whatever else */
	MALFORMED, /* cut off, wrong lengths, a chain that is too long */
};

#define IPV6_ROUTING_TYPE_SR 4 /* RFC 8754 §8.1 */
#define VLAN_HEADER 4

struct vlan_header {
	__be16 tci;
	__be16 protocol;
};

/* The header of ICMP (RFC 792) and of ICMPv6 (RFC 4443 §2.1). */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 rest; /* the MTU of a packet too big; its low half of "fragmentation needed" */
};
_Static_assert(sizeof(struct icmp_header) == 8, "icmp_header");

enum icmp {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO_REQUEST = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
	ICMP_FRAGMENTATION_NEEDED = 4, /* code of ICMP_UNREACHABLE */
	ICMPV6_UNREACHABLE = 1,
	ICMPV6_TOO_BIG = 2,
	ICMPV6_PARAMETER_PROBLEM = 4,
	ICMPV6_ECHO_REQUEST = 128,
	ICMPV6_ECHO_REPLY = 129,
};

struct extension {
	__u8 next;
	__u8 length; /* in 8 octets, without the first 8 */
	__u8 type;   /* of a routing header */
	__u8 left;
	__be32 rest;
};

/* fits tells whether some bytes at l4 are within the frame and within the IP packet:
 * what is behind that is padding.
 */
static __always_inline int fits(const struct packet *p, void *l4, void *end, __u32 bytes)
{
	return l4 + bytes <= end && p->l4 + bytes <= p->l3 + p->length;
}

/* parse_l4 reads the start of what IP carries: ports and flags, or the type of ICMP. */
static __always_inline enum parsed parse_l4(struct packet *p, void *l4, void *end)
{
	__be16 *ports = l4;

	if (p->fragment == LATER_FRAGMENT)
		return PARSED;
	switch (p->protocol) {
	case IPPROTO_TCP:
		if (!fits(p, l4, end, sizeof(struct tcphdr)))
			return MALFORMED;
		p->source_port = ports[0];
		p->destination_port = ports[1];
		p->flags = ((__u8 *)l4)[13];
		return PARSED;
	case IPPROTO_UDP:
		if (!fits(p, l4, end, 8))
			return MALFORMED;
		p->source_port = ports[0];
		p->destination_port = ports[1];
		return PARSED;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!fits(p, l4, end, sizeof(struct icmp_header)))
			return MALFORMED;
		p->type = *(__u8 *)l4;
		return PARSED;
	}
	return PARSED;
}

/* cut_off tells whether a packet is longer than the rest of its frame, or than room where
 * there is no frame. Most frames are in one piece: then nobody has to be asked.
 */
static __always_inline int cut_off(struct xdp_md *ctx, const struct packet *p, void *l3, void *end,
				   __u32 room)
{
	if (!ctx)
		return p->length > room;
	return l3 + p->length > end && p->length > bpf_xdp_get_buff_len(ctx) - p->l3;
}

/* parse_ipv4 reads an IPv4 header (RFC 791 §3.1) with its options passed over. */
static __always_inline enum parsed parse_ipv4(struct xdp_md *ctx, struct packet *p, void *data, void *end,
					      __u32 room)
{
	struct iphdr *ip = data + within(p->l3);
	__u32 header;

	barrier_var(p);
	if ((void *)(ip + 1) > end)
		return MALFORMED;
	header = ip->ihl * 4;
	p->length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || p->length < header || cut_off(ctx, p, ip, end, room))
		return MALFORMED;
	p->family = AF_INET;
	p->source = mapped(ip->saddr);
	p->destination = mapped(ip->daddr);
	p->protocol = ip->protocol;
	p->class = ip->tos;
	p->hops = ip->ttl;
	if (ip->frag_off & bpf_htons(0x3fff))
		p->fragment = ip->frag_off & bpf_htons(0x1fff) ? LATER_FRAGMENT : FIRST_FRAGMENT;
	p->l4 = p->l3 + header;
	return parse_l4(p, data + within(p->l4), end);
}

/* parse_ipv6 reads an IPv6 header (RFC 8200 §3) and the chain behind it. */
static __always_inline enum parsed parse_ipv6(struct xdp_md *ctx, struct packet *p, void *data, void *end,
					      __u32 room)
{
	struct ipv6hdr *ip = data + within(p->l3);
	__u32 next, at = p->l3 + sizeof(*ip);

	barrier_var(p);
	if ((void *)(ip + 1) > end)
		return MALFORMED;
	p->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->version != 6 || cut_off(ctx, p, ip, end, room))
		return MALFORMED;
	p->family = AF_INET6;
	copy_address(&p->source, &ip->saddr);
	copy_address(&p->destination, &ip->daddr);
	p->class = bpf_ntohl(*(__be32 *)ip) >> 20;
	p->hops = ip->hop_limit;
	next = ip->nexthdr;
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct extension *x = data + within(at);

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (p->fragment == LATER_FRAGMENT)
			break;
		if ((void *)(x + 1) > end)
			return MALFORMED;
		if (next == IPPROTO_FRAGMENT) { /* RFC 8200 §4.5; a whole packet in it is one (RFC 6946) */
			__be16 off = *(__be16 *)((void *)x + 2);

			if (off & bpf_htons(0xfff9))
				p->fragment = off & bpf_htons(0xfff8) ? LATER_FRAGMENT : FIRST_FRAGMENT;
			at += 8;
		} else {
			if (next == IPPROTO_ROUTING && x->type == IPV6_ROUTING_TYPE_SR)
				p->routing = 1;
			at += (x->length + 1) * 8;
		}
		next = x->next;
	}
	p->protocol = next;
	p->l4 = at;
	if (p->fragment != LATER_FRAGMENT &&
	    (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING ||
	     next == IPPROTO_FRAGMENT))
		return MALFORMED; /* the chain goes on */
	return parse_l4(p, data + within(at), end);
}

/* hides_routing tells whether the chain of extension headers of a packet that is malformed
 * could not be read to its end, where an SRH might be.
 */
static __always_inline int hides_routing(const struct packet *p)
{
	return p->family == AF_INET6 &&
	       (!p->l4 || p->protocol == IPPROTO_HOPOPTS || p->protocol == IPPROTO_DSTOPTS ||
		p->protocol == IPPROTO_ROUTING || p->protocol == IPPROTO_FRAGMENT);
}

/* parse_ip reads what is at p->l3 of a frame whose Ethernet type says so. */
static __always_inline enum parsed parse_ip(struct xdp_md *ctx, struct packet *p, __be16 type)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, p, data, end, 0);
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(ctx, p, data, end, 0);
	return NOT_IP;
}

/* parse reads a frame into p, which is zero. As in all that write it, p is a pointer to
 * memory for the compiler: there each field is written once. In registers, each of the
 * many ways out of here would have to set all of them first.
 */
static __always_inline enum parsed parse(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct vlan_header *vlan = (void *)(eth + 1);
	__be16 type;

	barrier_var(p);
	if ((void *)(eth + 1) > end)
		return NOT_IP;
	type = eth->h_proto;
	p->l3 = sizeof(*eth);
	if (type == bpf_htons(ETH_P_8021Q)) {
		if ((void *)(vlan + 1) > end)
			return NOT_IP;
		type = vlan->protocol;
		p->l3 += sizeof(*vlan);
	}
	return parse_ip(ctx, p, type);
}

#endif
