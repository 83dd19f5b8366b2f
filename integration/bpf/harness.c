// SPDX-License-Identifier: GPL-2.0
/* What an XDP program costs a packet. Before every run of it the frame is made anew,
 * from another flow than the last one.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define HEADERS 160 /* bytes of a frame that are made anew */

char _license[] SEC("license") = "GPL";

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
__u64 verdicts[8];

/* subject stands for the program that is measured: the loader puts that here, as
 * programs of this kind cannot be replaced once they are in the kernel.
 */
__noinline int subject(struct xdp_md *ctx)
{
	void *frame = (void *)(long)ctx->data;

	barrier_var(frame); /* not a constant, else nobody would call it */
	return frame ? XDP_PASS : XDP_ABORTED;
}

SEC("xdp.frags")
int harness(struct xdp_md *ctx)
{
	/* What the last run added is still there. */
	int surplus = (int)bpf_xdp_get_buff_len(ctx) - (int)given.length;
	__u32 flow = (__u32)packets++ * 0x9e3779b1, verdict;
	void *data, *end;
	__u64 *headers;

	if (bpf_xdp_adjust_head(ctx, surplus))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + HEADERS > end || given.address > HEADERS - 4 || given.port > HEADERS - 2)
		return XDP_ABORTED;
	headers = data;
#pragma unroll
	for (int i = 0; i < HEADERS / 8; i++)
		headers[i] = given.headers[i];
	*(__u32 *)(data + given.address) ^= flow & given.address_mask;
	*(__u16 *)(data + given.port) ^= flow & given.port_mask;
	verdict = subject(ctx);
	verdicts[verdict % 8]++;
	return verdict;
}
