/* SPDX-License-Identifier: GPL-2.0 */
/* QUIC by connection ID: a connection stays with its backend when the client's address
 * changes, and whatever becomes of rows (draft-ietf-quic-load-balancers-21, plaintext).
 * The server puts its ID into the connection IDs that it gives:
 *
 *	rotation (3 bits), anything (5 bits), server ID, nonce (4 bytes or more)
 *
 * What names no server goes by the row. So do the packets that begin a connection, as
 * nobody but the key of the hash may choose who gets those.
 */
#ifndef RAZOR_QUIC_H
#define RAZOR_QUIC_H

#include "sites.h"

#define UDP_HEADER 8

/* A long header (RFC 8999 §5.1). */
#define LONG_HEADER 0x80
struct long_header {
	__u8 first;
	__u8 version[4];
	__u8 length; /* of the ID behind it */
};
_Static_assert(sizeof(struct long_header) == 6, "long_header");

#define NONCE 4 /* bytes, the least */

#define VERSION_1 1	     /* RFC 9000 §17.2 */
#define VERSION_2 0x6b3343cf /* RFC 9369 §3.1 */

/* begins tells whether a packet is an Initial or 0-RTT: of those versions that have them,
 * and whose first packets therefore have IDs that the client chose.
 */
static __always_inline int begins(const struct long_header *l)
{
	__u32 version = (__u32)l->version[0] << 24 | l->version[1] << 16 | l->version[2] << 8 | l->version[3];
	__u32 type = l->first >> 4 & 3;

	return (version == VERSION_1 && type <= 1) || (version == VERSION_2 && (type == 1 || type == 2));
}

/* server_of is the server ID in the connection ID of a packet that is for a service. It
 * returns -1 where there is none. All packets of QUIC are longer than the longest ID
 * (RFC 9001 §5.4.2), and it is read whole.
 */
static __always_inline int server_of(struct server_key *k, const struct packet *p, const struct service *s,
				     void *data, void *end)
{
	void *udp = data + within(p->l4);
	struct long_header *l = udp + UDP_HEADER;
	__u8 *id = udp + UDP_HEADER + 1;

	if (!fits(p, udp, end, UDP_HEADER + sizeof(*l) + 1 + MAX_SERVER_ID))
		return -1;
	if (l->first & LONG_HEADER) {
		if (begins(l) || l->length < 1 + s->server_id + NONCE)
			return -1;
		id = (void *)(l + 1);
	}
	if (id[0] >> 5 != s->rotation)
		return -1;
#pragma unroll
	for (int i = 0; i < MAX_SERVER_ID; i++)
		if (i < s->server_id)
			k->id[i] = id[1 + i];
	return 0;
}

/* name_server gives a choice the backend that the connection ID names, if there is a way
 * to it.
 */
static __always_inline void name_server(struct choice *c, const struct packet *p, const struct service *service,
					__u32 number, void *data, void *end)
{
	struct server_key k = {.service = number};
	__u32 *named, index;
	struct backend *b;

	if (p->protocol != IPPROTO_UDP || p->fragment || server_of(&k, p, service, data, end))
		return;
	named = bpf_map_lookup_elem(&servers, &k);
	if (!named)
		return;
	index = *named;
	b = bpf_map_lookup_elem(&backends, &index);
	if (!b || !b->hop.ifindex)
		return;
	c->current = index;
	trace_named(index);
}

/* send_quic goes on with the program for connection IDs. Without it, the row says who
 * gets the packet.
 */
static __always_inline void send_quic(struct xdp_md *ctx, const struct choice *c, __u32 service)
{
	struct scratch *s = scratch_of_cpu();

	if (!s)
		return;
	s->choice = *c;
	s->service = service;
	bpf_tail_call(ctx, &steps, STEP_QUIC);
}

/* balancer_quic sends a packet to whom its connection ID names, else to the scratch's
 * choice.
 */
SEC("xdp.frags")
int balancer_quic(struct xdp_md *ctx)
{
	struct packet p = {};
	struct host *h = this_host();
	struct scratch *s = scratch_of_cpu();
	struct service *service;
	struct choice c;

	if (!h || !s || parse(ctx, &p) != PARSED)
		return count(DROPPED_MALFORMED, XDP_DROP);
	c = s->choice;
	service = bpf_map_lookup_elem(&services, &s->service);
	if (!service)
		return count(DROPPED_BACKEND, XDP_DROP);
	name_server(&c, &p, service, s->service, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (spills(service, &c, 0))
		send_spilled(ctx, &c, s->service);
	note(&backend_traffic, c.current, p.length, &c);
	return send_chosen(ctx, &p, h, &c, 0);
}

#endif
