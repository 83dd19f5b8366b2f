/* SPDX-License-Identifier: GPL-2.0 */
/* The Internet checksum: RFC 1071, changed in place by RFC 1624. */
#ifndef RAZOR_CSUM_H
#define RAZOR_CSUM_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* csum_fold makes 16 bits of a sum. */
static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* csum_replace is a checksum after a 16-bit word of what it covers was changed
 * (RFC 1624 §3, equation 3).
 */
static __always_inline __u16 csum_replace(__u16 csum, __u16 from, __u16 to)
{
	return ~csum_fold((__u64)(__u16)~csum + (__u16)~from + to);
}

#endif
