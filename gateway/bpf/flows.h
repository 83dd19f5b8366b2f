/* SPDX-License-Identifier: GPL-2.0 */
/* How many flows there are, beside their packets. A new one is a SYN, sent again or not.
 * An old one counts once in each second in which it has another packet; what is not TCP
 * has no first packet that can be known, and is old.
 *
 * Who had a packet in this second is remembered by slots of the hash, the seconds of
 * which begin one after the other, so that not all flows count at once. Two flows in a
 * slot count as one. So that this costs nothing where there are many packets, only some
 * flows are looked at then, and each stands for as many as are not: of all at first, of
 * half of them after SEEN_MOST looks in a second, and so on.
 */
#ifndef RAZOR_FLOWS_H
#define RAZOR_FLOWS_H

#include "steer.h"

#define SEEN_MOST (SEEN_SLOTS / 8) /* looks in a second */
#define SAMPLE_MOST 0xffff
#define SAMPLE_PACKETS 1024 /* of a VIP, from one look at the sample to the next at the latest */

/* fit_sample has fewer flows looked at after many looks in a second, and more in the
 * next one after few. After seconds without any, few flows are left.
 */
static __always_inline void fit_sample(struct host *h, struct seen *s, __u32 now)
{
	__u32 sample = *(volatile __u32 *)&h->sample;

	if (s->second != now) {
		if (sample && s->looks < SEEN_MOST / 4)
			h->sample = now - s->second > 1 ? 0 : sample >> 1;
		s->second = now;
		s->looks = 0;
		return;
	}
	if (++s->looks > SEEN_MOST && sample < SAMPLE_MOST) {
		s->looks /= 2;
		h->sample = sample << 1 | 1;
	}
}

/* old_flows is how many flows a packet of an old one stands for: none where its flow had
 * one in this second, or is not looked at.
 */
static __always_inline __u32 old_flows(struct host *h, __u64 hash, __u64 packets)
{
	__u32 sample = *(volatile __u32 *)&h->sample, zero = 0, slot, second;
	int chosen = !(hash & sample);
	struct seen *s;
	__u64 now;

	if (!chosen && packets % SAMPLE_PACKETS)
		return 0;
	s = bpf_map_lookup_elem(&seen, &zero);
	if (!s)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	fit_sample(h, s, now / SECOND);
	if (!chosen)
		return 0;
	slot = hash >> 32 & (SEEN_SLOTS - 1);
	second = (now + slot * (SECOND / SEEN_SLOTS)) / SECOND;
	if (s->at[slot] == second)
		return 0;
	s->at[slot] = second;
	return sample + 1;
}

/* count_flow counts the flow of a packet of a VIP, and keeps in the choice what counts for
 * the backend that the packet goes to.
 */
static __always_inline void count_flow(struct traffic *of, struct host *h, struct choice *c, int new)
{
	if (!of)
		return;
	if (new)
		c->new_flows = 1;
	else
		c->old_flows = old_flows(h, c->hash, of->packets);
	of->new_flows += c->new_flows;
	of->old_flows += c->old_flows;
}

#endif
