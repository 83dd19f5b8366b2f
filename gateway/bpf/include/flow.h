/* SPDX-License-Identifier: GPL-2.0 */
/* The hash of a flow, and the rows of a service's table. */
#ifndef RAZOR_FLOW_H
#define RAZOR_FLOW_H

#include <linux/types.h>
#include "parse.h"

#define TABLE_SLOTS 65537 /* a prime (Maglev, NSDI 2016 §3.4) */

/* A row: who has the flows of a slot, and who had them (Beamer, NSDI 2018). */
#define ROW_BACKEND 0x7fff
#define ROW_CURRENT(row) ((row) & ROW_BACKEND)
#define ROW_PREVIOUS(row) (((row) >> 15) & ROW_BACKEND)
#define ROW_MARK (1u << 30) /* pins have flows of the slot */

#define HISTORY 4 /* backends that left current or previous, 16 bits each, newest lowest */

/* flow is the hash key of a service, and what it is taken of. */
struct flow {
	__u64 key[2];
	__be64 address[2]; /* of the client */
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
};

#define SIP_ROTL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define SIP_ROUND()                                                                               \
	do {                                                                                      \
		v0 += v1; v1 = SIP_ROTL(v1, 13); v1 ^= v0; v0 = SIP_ROTL(v0, 32);                  \
		v2 += v3; v3 = SIP_ROTL(v3, 16); v3 ^= v2;                                         \
		v0 += v3; v3 = SIP_ROTL(v3, 21); v3 ^= v0;                                         \
		v2 += v1; v1 = SIP_ROTL(v1, 17); v1 ^= v2; v2 = SIP_ROTL(v2, 32);                  \
	} while (0)

/* flow_hash is SipHash-1-3 (Aumasson and Bernstein, 2012) of the 21 bytes of the
 * client's address, the ports and the protocol, as they are on the wire. Who does
 * not know the key cannot aim at a slot.
 */
static __always_inline __u64 flow_hash(const struct flow *f)
{
	__u64 v0 = f->key[0] ^ 0x736f6d6570736575, v1 = f->key[1] ^ 0x646f72616e646f6d;
	__u64 v2 = f->key[0] ^ 0x6c7967656e657261, v3 = f->key[1] ^ 0x7465646279746573;
	__u64 last = (__u64)21 << 56 | (__u64)f->protocol << 32 | (__u64)f->destination_port << 16 |
		     f->source_port;

	v3 ^= f->address[0];
	SIP_ROUND();
	v0 ^= f->address[0];
	v3 ^= f->address[1];
	SIP_ROUND();
	v0 ^= f->address[1];
	v3 ^= last;
	SIP_ROUND();
	v0 ^= last;
	v2 ^= 0xff;
	SIP_ROUND();
	SIP_ROUND();
	SIP_ROUND();
	return v0 ^ v1 ^ v2 ^ v3;
}

/* flow_slot is the slot of a hash in a table. */
static __always_inline __u32 flow_slot(__u64 hash)
{
	return ((hash & 0xffffffff) * TABLE_SLOTS) >> 32;
}

/* flow_label is the outer flow label of a flow (RFC 6437 §3): 20 bits, never 0. */
static __always_inline __u32 flow_label(__u64 hash)
{
	return (hash >> 44) ?: 1;
}

#endif
