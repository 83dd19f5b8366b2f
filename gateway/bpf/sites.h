/* SPDX-License-Identifier: GPL-2.0 */
/* Other sites: their entries, the slots that spill to them, and how many misses they
 * are asked about.
 */
#ifndef RAZOR_SITES_H
#define RAZOR_SITES_H

#include "list.h"
#include "trace.h"

#define SPILL_STEP 40507 /* steering.Rank */

/* rank_of is the place of a slot in the order in which slots spill. */
static __always_inline __u32 rank_of(__u32 slot)
{
	return slot * SPILL_STEP % TABLE_SLOTS;
}

/* entry_of is the backend that is the entry of another site for a flow, 0 if there is no
 * way to any.
 */
static __always_inline __u32 entry_of(const struct host *h, __u32 number, __u64 hash)
{
	struct site *site = bpf_map_lookup_elem(&sites, &number);
	struct backend *b;
	__u32 entry;

	if (number >= h->sites || !site)
		return 0;
	entry = site->entries[hash >> 61];
	b = bpf_map_lookup_elem(&backends, &entry);
	if (b && b->hop.ifindex)
		return entry;
	entry = site->entries[((hash >> 61) + 1) % SITE_GATEWAYS]; /* another one, if there are several */
	b = bpf_map_lookup_elem(&backends, &entry);
	return b && b->hop.ifindex ? entry : 0;
}

/* may_ask tells whether a packet that missed may go to another site. A flood of packets
 * of flows that nobody has leaves half of the budget to those that come again in one of
 * the next seconds, as a client does that is not answered; a flow has one of those
 * packets a second.
 */
static __always_inline int may_ask(__u64 hash)
{
	__u64 now = bpf_ktime_get_coarse_ns(), interval = now / BUDGET_INTERVAL;
	__u32 zero = 0, block = (hash >> 32) & (FINGERPRINT_BLOCKS - 1);
	__u32 mark = (__u32)hash << 8 | ((now / SECOND) & 0xff), was;
	struct fingerprints *f = bpf_map_lookup_elem(&missed, &block);
	struct budget *b = bpf_map_lookup_elem(&budgets, &zero);
	__u64 most;

	if (!f || !b)
		return 0;
	was = f->of[hash >> 50 & (FINGERPRINTS - 1)];
	f->of[hash >> 50 & (FINGERPRINTS - 1)] = mark;
	most = b->most;
	if (was >> 8 != mark >> 8 || was == mark || ((mark - was) & 0xff) > FINGERPRINT_AGE)
		most /= 2;
	if (b->interval != interval) {
		b->interval = interval;
		b->used = 0;
	}
	if (*(volatile __u64 *)&b->used >= most)
		return 0;
	__sync_fetch_and_add(&b->used, 1);
	return 1;
}

/* spills tells whether the packets of a choice may go to another site. */
static __always_inline int spills(const struct service *s, const struct choice *c, int tcp)
{
	return s->spilled && !c->owner && (tcp || !c->current) && rank_of(flow_slot(c->hash)) < s->spilled;
}

/* send_spilled goes on with the program for slots that spill. Without it, all stays. */
static __always_inline void send_spilled(struct xdp_md *ctx, const struct choice *c, __u32 service)
{
	struct scratch *s = scratch_of_cpu();

	if (!s)
		return;
	s->choice = *c;
	s->service = service;
	bpf_tail_call(ctx, &steps, STEP_SPILLED);
}

/* site_of is the site of a rank that spills. */
static __always_inline __u32 site_of(const struct service *s, __u32 rank)
{
#pragma unroll
	for (int i = 0; i < MAX_SPILLS; i++)
		if (rank < s->spills[i].end)
			return s->spills[i].site;
	return MAX_SITES;
}

/* balancer_spilled sends a packet of a slot that spills: of a new flow to the other
 * site alone, of another one to its backends here before. UDP is here when the slot has
 * no backend.
 */
SEC("xdp.frags")
int balancer_spilled(struct xdp_md *ctx)
{
	struct packet p = {};
	struct host *h = this_host();
	struct asked a = {};
	struct service *service;
	union address source;
	struct choice c;
	__u32 site, entry;
	int new;

	if (!h || begin_list(&a, MAX_SEGMENTS) || parse(ctx, &p) != PARSED)
		return count(DROPPED_MALFORMED, XDP_DROP);
	c = a.own->choice;
	service = bpf_map_lookup_elem(&services, &a.own->service);
	if (!service)
		return count(DROPPED_BACKEND, XDP_DROP);
	site = site_of(service, rank_of(flow_slot(c.hash)));
	trace_site(site);
	entry = entry_of(h, site, c.hash);
	new = p.protocol != IPPROTO_TCP || p.flags & TCP_SYN;
	if (!new || (!entry && p.protocol == IPPROTO_TCP)) {
		ask(&a, c.current);
		ask(&a, c.other);
	}
	ask(&a, entry);
	if (!a.own->n) {
		if (!new)
			bpf_tail_call(ctx, &steps, STEP_LOST);
		return count(DROPPED_BACKEND, XDP_DROP);
	}
	if (new && entry)
		count(SPILLED, 0);
	note(&backend_traffic, a.own->first, p.length, &c);
	/* Without a backend here, who is given back goes on to the sites behind that one. */
	source = source_of(h, c.hash, new && entry && !c.current ? site + 2 : 0);
	return send_list(ctx, &p, &source, &a, c.hash);
}

#endif
