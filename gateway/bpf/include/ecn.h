/* SPDX-License-Identifier: GPL-2.0 */
/* Congestion that an outer header tells of (RFC 6040). */
#ifndef RAZOR_ECN_H
#define RAZOR_ECN_H

#include "csum.h"
#include "parse.h"

#define ECN 3 /* bits of the traffic class (RFC 3168 §5) */
#define NOT_ECT 0
#define ECT_1 1
#define ECT_0 2
#define CE 3

/* merge_ecn has the inner packet keep what the outer one says of congestion
 * (RFC 6040 §4.2). It returns -1 for a packet that has to be dropped.
 */
static __always_inline int merge_ecn(void *l3, void *end, __u8 family, __u8 outer, __u8 inner)
{
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;
	__be16 *word = l3, was;

	outer &= ECN;
	inner &= ECN;
	if (inner == NOT_ECT)
		return outer == CE ? -1 : 0;
	if (inner == CE || (outer != CE && !(outer == ECT_1 && inner == ECT_0)))
		return 0;
	if (l3 + sizeof(*ip) > end)
		return -1;
	if (family == AF_INET6) {
		ip6->flow_lbl[0] = (ip6->flow_lbl[0] & ~(ECN << 4)) | outer << 4;
		return 0;
	}
	was = *word;
	ip->tos = (ip->tos & ~ECN) | outer;
	ip->check = csum_replace(ip->check, was, *word);
	return 0;
}

#endif
