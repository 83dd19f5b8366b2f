// SPDX-License-Identifier: GPL-2.0
/* Both ends of what is measured on a wire: live frames into one end of it, and what
 * comes back there.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include "traffic.h"

char _license[] SEC("license") = "GPL";

const volatile __u32 wire = 0; /* index of the interface */

#define WINDOW 16384 /* packets: what waits in queues when it begins is little of it */

__u64 returned;
__u64 least; /* ns of a window */
__u64 began; /* the window, by the monotonic clock */

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	return make_frame(ctx) ? XDP_ABORTED : bpf_redirect(wire, 0);
}

/* end_window ends a window: the least is one that nobody disturbed. */
static __always_inline void end_window(void)
{
	__u64 now = bpf_ktime_get_ns();

	if (began && (!least || now - began < least))
		least = now - began;
	began = now;
}

/* collect counts what is encapsulated, and keeps it. One core runs it for one wire. */
SEC("xdp.frags")
int collect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IPV6) ||
	    (ip->nexthdr != IPPROTO_ROUTING && ip->nexthdr != IPPROTO_IPV6))
		return XDP_PASS;
	if (!(++returned % WINDOW))
		end_window();
	return XDP_DROP;
}
