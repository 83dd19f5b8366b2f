/* SPDX-License-Identifier: GPL-2.0 */
/* Whose is a packet? The sockets of a target know. */
#ifndef RAZOR_OWNER_H
#define RAZOR_OWNER_H

#include "maps.h"

/* ICMP errors. The kernel's headers of ICMP need those of a C library. */
#define ICMP_UNREACHABLE 3
#define ICMP_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_INFORMATION 0x80

#define NOBODY REASONS /* of the reasons to take a packet, none */

#define OFFSET_MASK 0x3fff /* above all offsets of headers, for the verifier */

/* Of the kernel's request sockets: the sequence number of the SYN+ACK. */
struct tcp_request_sock {
	__u32 snt_isn;
} __attribute__((preserve_access_index));

/* seeker is who asks for the owner of a packet. */
struct seeker {
	const struct target *target;
	__u32 last; /* nobody is left to ask */
};

/* find is the socket that the kernel would give a packet of a conversation to. */
static __always_inline struct bpf_sock *find(struct xdp_md *ctx, const struct conversation *c,
					     __s32 netns)
{
	struct bpf_sock_tuple t = {};

	if (is_mapped(&c->vip)) {
		t.ipv4.saddr = c->client.words[3];
		t.ipv4.daddr = c->vip.words[3];
		t.ipv4.sport = c->client_port;
		t.ipv4.dport = c->vip_port;
		return bpf_skc_lookup_tcp(ctx, &t, sizeof(t.ipv4), netns, 0);
	}
	__builtin_memcpy(t.ipv6.saddr, &c->client, 16);
	__builtin_memcpy(t.ipv6.daddr, &c->vip, 16);
	t.ipv6.sport = c->client_port;
	t.ipv6.dport = c->vip_port;
	return bpf_skc_lookup_tcp(ctx, &t, sizeof(t.ipv6), netns, 0);
}

/* request_isn is the initial sequence number of a request socket. The helper that casts
 * to one does not know those of Multipath TCP, which the listeners of Go have, and the
 * verifier lets nobody look into a socket without a cast: so the pointer is read as a
 * number first.
 */
static __always_inline __u32 request_isn(struct bpf_sock *sk)
{
	struct tcp_request_sock *req = NULL;
	__u32 isn = 0;

	bpf_probe_read_kernel(&req, sizeof(req), &sk);
	bpf_probe_read_kernel(&isn, sizeof(isn), &req->snt_isn);
	return isn;
}

static __always_inline int opens(const struct packet *p)
{
	return (p->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* takes_cookie tells whether a listener gave the SYN cookie that a packet brings. */
static __always_inline int takes_cookie(struct bpf_sock *sk, const struct packet *p,
					struct tcphdr *tcp, void *data, void *end)
{
	void *ip = data + (p->l3 & OFFSET_MASK);

	if (p->family == AF_INET)
		return ip + sizeof(struct iphdr) <= end &&
		       !bpf_tcp_check_syncookie(sk, ip, sizeof(struct iphdr), tcp, sizeof(*tcp));
	return ip + sizeof(struct ipv6hdr) <= end &&
	       !bpf_tcp_check_syncookie(sk, ip, sizeof(struct ipv6hdr), tcp, sizeof(*tcp));
}

/* owner_of_syn is for a SYN alone: a connection that has its address and ports, also
 * half open, or a listener. A host under load lets it go on to the next one. What is
 * in TIME_WAIT gives its place to a listener (RFC 9293 §3.6.1), which is found where
 * no connection can be: at port 0.
 */
static __always_inline __u32 owner_of_syn(struct xdp_md *ctx, struct conversation *c,
					  const struct seeker *s)
{
	struct bpf_sock *sk = find(ctx, c, s->target->netns);
	__u32 state;

	if (!sk)
		return NOBODY;
	state = sk->state;
	bpf_sk_release(sk);
	if (state == BPF_TCP_TIME_WAIT) {
		c->client_port = 0;
		sk = find(ctx, c, s->target->netns);
		if (!sk)
			return NOBODY;
		state = sk->state;
		bpf_sk_release(sk);
	}
	if (state == BPF_TCP_LISTEN)
		return s->target->level < LEVEL_WARNING || s->last ? TAKEN_SYN : NOBODY;
	return state == BPF_TCP_NEW_SYN_RECV ? TAKEN_SYN : TAKEN_SOCKET;
}

/* owner_of_tcp is for all other packets of TCP. A listener alone owns nothing but its
 * cookies, and a request socket only what answers it: one that a retransmitted SYN
 * left behind would reset another's connection.
 */
static __always_inline __u32 owner_of_tcp(struct xdp_md *ctx, const struct packet *p,
					  const struct conversation *c, const struct seeker *s)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + (p->l4 & OFFSET_MASK);
	__u32 owner = TAKEN_SOCKET;
	struct bpf_sock *sk;

	if ((void *)(tcp + 1) > end)
		return NOBODY;
	sk = find(ctx, c, s->target->netns);
	if (!sk)
		return NOBODY;
	switch (sk->state) {
	case BPF_TCP_LISTEN:
		owner = takes_cookie(sk, p, tcp, data, end) ? TAKEN_COOKIE : NOBODY;
		break;
	case BPF_TCP_NEW_SYN_RECV:
		owner = p->flags & TCP_ACK && bpf_ntohl(tcp->ack_seq) == request_isn(sk) + 1 ?
				TAKEN_REQUEST : NOBODY;
		break;
	case BPF_TCP_TIME_WAIT:
		owner = p->flags & (TCP_FIN | TCP_RST) ? TAKEN_TIME_WAIT : NOBODY;
		break;
	}
	bpf_sk_release(sk);
	return owner;
}

/* is_error tells whether a packet is an ICMP error (RFC 792, RFC 4443 §2.1). */
static __always_inline int is_error(const struct packet *p)
{
	if (p->fragment != WHOLE)
		return 0;
	if (p->family == AF_INET6)
		return p->protocol == IPPROTO_ICMPV6 && !(p->type & ICMPV6_INFORMATION);
	return p->protocol == IPPROTO_ICMP &&
	       (p->type == ICMP_UNREACHABLE || p->type == ICMP_EXCEEDED ||
		p->type == ICMP_PARAMETER);
}

/* quoted reads the packet of TCP that an ICMP error is about, which went from the VIP
 * to the client, and its sequence number. It returns -1 where there is none: the first
 * 8 bytes of TCP are what every error has (RFC 792).
 */
static __always_inline int quoted(struct xdp_md *ctx, const struct packet *p,
				  struct conversation *c, __u32 *sequence)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l3 = data + (p->l4 & OFFSET_MASK) + 8, *l4;
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;

	if (p->family == AF_INET6) {
		l4 = ip6 + 1;
		if (l4 > end || ip6->version != 6 || ip6->nexthdr != IPPROTO_TCP)
			return -1;
		__builtin_memcpy(&c->vip, &ip6->saddr, 16);
		__builtin_memcpy(&c->client, &ip6->daddr, 16);
	} else {
		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 ||
		    ip->protocol != IPPROTO_TCP || ip->frag_off & bpf_htons(0x1fff))
			return -1;
		l4 = l3 + ip->ihl * 4;
		c->vip.halves[0] = c->client.halves[0] = 0;
		c->vip.words[2] = c->client.words[2] = bpf_htonl(0xffff);
		c->vip.words[3] = ip->saddr;
		c->client.words[3] = ip->daddr;
	}
	if (l4 + 8 > end || c->vip.halves[0] != p->destination.halves[0] ||
	    c->vip.halves[1] != p->destination.halves[1])
		return -1;
	c->vip_port = ((__be16 *)l4)[0];
	c->client_port = ((__be16 *)l4)[1];
	*sequence = bpf_ntohl(((__be32 *)l4)[1]);
	return 0;
}

/* owner_of_error is for an ICMP error about TCP: the socket that sent what it quotes. */
static __always_inline __u32 owner_of_error(struct xdp_md *ctx, const struct conversation *c,
					    __u32 sequence, const struct seeker *s)
{
	struct bpf_sock *sk = find(ctx, c, s->target->netns);
	__u32 owner = TAKEN_ERROR;

	if (!sk)
		return NOBODY;
	switch (sk->state) {
	case BPF_TCP_LISTEN:
	case BPF_TCP_TIME_WAIT:
		owner = NOBODY;
		break;
	case BPF_TCP_NEW_SYN_RECV:
		if (sequence != request_isn(sk))
			owner = NOBODY;
		break;
	}
	bpf_sk_release(sk);
	return owner;
}

/* owner tells why a packet at a hunting SID is the target's, or NOBODY. What is not of
 * TCP is taken at once: no socket tells who owns a flow of UDP, so the list's order is
 * all there is, and it begins with the slot's current backend. So are fragments, whose
 * pieces could not be told alike. c is the conversation where there is one.
 */
static __always_inline __u32 owner(struct xdp_md *ctx, const struct packet *p,
				   struct conversation *c, const struct seeker *s)
{
	__u32 sequence = 0;

	if (p->protocol == IPPROTO_TCP && p->fragment == WHOLE) {
		c->client = p->source;
		c->vip = p->destination;
		c->client_port = p->source_port;
		c->vip_port = p->destination_port;
		return opens(p) ? owner_of_syn(ctx, c, s) : owner_of_tcp(ctx, p, c, s);
	}
	if (is_error(p) && !quoted(ctx, p, c, &sequence))
		return owner_of_error(ctx, c, sequence, s);
	return TAKEN_UNHUNTED;
}

#endif
