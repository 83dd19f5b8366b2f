/* SPDX-License-Identifier: GPL-2.0 */
/* The frames of a measurement: each is from another flow than the last one. */
#ifndef RAZOR_TRAFFIC_H
#define RAZOR_TRAFFIC_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define HEADERS 160 /* bytes of a frame that are made anew */

/* traffic is what the frames are like. */
struct traffic {
	__u32 length;	    /* of a frame */
	__u32 address;	    /* where the part of the client's address is that flows differ in */
	__u32 address_mask; /* the bits that do */
	__u32 port;	    /* where the client's port is */
	__u32 port_mask;
	__u32 spare;
	__u64 headers[HEADERS / 8];
};
_Static_assert(sizeof(struct traffic) == 184, "traffic");

const volatile struct traffic given = {};

__u64 packets;

/* make_frame makes the next frame in the place of the last one. It returns -1 where there
 * is no room for it.
 */
static __always_inline int make_frame(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 flow = (__u32)packets++ * 0x9e3779b1;
	__u64 *headers = data;

	if (data + HEADERS > end || given.address > HEADERS - 4 || given.port > HEADERS - 2)
		return -1;
#pragma unroll
	for (int i = 0; i < HEADERS / 8; i++)
		headers[i] = given.headers[i];
	*(__u32 *)(data + given.address) ^= flow & given.address_mask;
	*(__u16 *)(data + given.port) ^= flow & given.port_mask;
	return 0;
}

#endif
