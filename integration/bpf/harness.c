// SPDX-License-Identifier: GPL-2.0
/* What an XDP program costs a packet. Before every run of it the frame is made anew,
 * from another flow than the last one.
 */
#include "traffic.h"

char _license[] SEC("license") = "GPL";

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
	__u32 verdict;

	if (bpf_xdp_adjust_head(ctx, surplus) || make_frame(ctx))
		return XDP_ABORTED;
	verdict = subject(ctx);
	verdicts[verdict % 8]++;
	return verdict;
}
