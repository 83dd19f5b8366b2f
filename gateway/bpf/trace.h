/* SPDX-License-Identifier: GPL-2.0 */
/* What an operator sees of packets: a record for each of a sample. The balancer is run by a
 * program that looks at a packet before and after, and at the counters, which tell what
 * became of it: so all that count is seen, of all steps. What the steps know beside is
 * left in the record on the way.
 *
 * Without a trace nothing of this runs. With one, the work is bounded on each CPU.
 */
#ifndef RAZOR_TRACE_H
#define RAZOR_TRACE_H

#include "steer.h"

#define TRACE_SNAP 256		   /* bytes of a frame that a record has */
#define TRACE_INTERVAL 100000000ull /* ns */
#define TRACE_LOOKS 5000	   /* packets of a CPU in an interval that are looked at */
#define TRACE_RECORDS 100	   /* and that there are records of */
#define TRACE_ROOM (1 << 20)	   /* bytes of records that wait for who reads them */

/* trace is which packets a trace is of. A mask of zeros is of all addresses. */
struct trace {
	__u64 until; /* a lease, ns of the monotonic clock: who reads renews it */
	union address client, client_mask;
	union address vip, vip_mask;
	__u32 session; /* of the records */
	__u32 reasons; /* a bit for each */
	__u32 every;   /* one of so many is looked at */
	__be16 port;   /* of the VIP; 0 is any */
	__u8 protocol; /* 0 is any */
	__u8 spare;
};
_Static_assert(sizeof(struct trace) == 88, "trace");

/* What is known of a packet beside its flow. */
#define RECORD_VIP 1
#define RECORD_SLOT 2  /* and what its row was */
#define RECORD_SITE 4  /* another site that is asked */
#define RECORD_ROUND 8 /* of a miss */

/* record is a packet. The flow is the client's, also of an error, of a miss, and of what
 * is encapsulated.
 */
struct record {
	__u64 time; /* ns of the monotonic clock */
	union address source; /* as the packet came */
	union address client;
	union address vip;
	__be16 client_port;
	__be16 vip_port;
	__u8 protocol;
	__u8 flags; /* of TCP */
	__u8 known;
	__u8 portless; /* no ports were to be had */
	__u32 session;
	__u32 device;
	__u32 verdict;
	__u32 reasons; /* a bit for each */
	__u32 service;
	__u32 number; /* of the VIP */
	__u32 slot;
	__u32 row;
	__u32 second;
	__u32 owner;  /* by a pin */
	__u32 named;  /* by a connection ID */
	__u32 site;
	__u32 round;
	__u32 length; /* of the IP packet as it came, 0 where that is not known */
	__u32 came;   /* bytes of the frame */
	__u32 left;   /* bytes of the frame that went on, 0 for none */
	__u8 before[TRACE_SNAP];
	__u8 after[TRACE_SNAP];
};
_Static_assert(sizeof(struct record) == 128 + 2 * TRACE_SNAP, "record");
_Static_assert(REASONS <= 32, "bits of reasons");

/* cpu_trace is what a CPU knows of a trace. */
struct cpu_trace {
	__u64 interval;
	__u32 looks; /* in the interval */
	__u32 told;
	__u32 on; /* the packet at hand is looked at */
	__u32 spare;
	__u64 matched; /* packets that could be wanted, before the sample was taken of them */
	__u64 unseen;  /* packets that came when enough were looked at */
	__u64 limited; /* without a record: too many */
	__u64 lost;    /* there was no room */
	__u64 counted[REASONS]; /* before */
	struct record record;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace);
} traces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_trace);
} cpu_traces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TRACE_ROOM);
} records SEC(".maps");

static __always_inline struct cpu_trace *trace_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cpu_traces, &zero);
}

/* record_at_hand is that of the packet, NULL where it has none. */
static __always_inline struct record *record_at_hand(void)
{
	struct cpu_trace *t = trace_of_cpu();

	return t && t->on ? &t->record : NULL;
}

/* has_no_ports tells whether a packet has none to tell its flow by. */
static __always_inline int has_no_ports(__u32 fragment, __u8 protocol)
{
	return fragment || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP);
}

/* What steps note of the packet at hand is in functions that the verifier looks at once,
 * and not on each path that calls them: so none of them is static.
 */

/* note_flow is for trace_flow. */
__noinline int note_flow(const struct embedded *e, __u32 flags, __u32 fragment)
{
	struct record *r = record_at_hand();

	if (!r || !e)
		return 0;
	r->client = e->client;
	r->client_port = e->client_port;
	r->vip = e->vip;
	r->vip_port = e->port;
	r->protocol = e->protocol;
	r->flags = flags;
	r->portless = has_no_ports(fragment, e->protocol);
	return 0;
}

/* note_vip is for trace_vip. */
__noinline int note_vip(__u32 service, __u32 number)
{
	struct record *r = record_at_hand();

	if (!r)
		return 0;
	r->service = service;
	r->number = number;
	r->known |= RECORD_VIP;
	return 0;
}

/* trace_choice notes whom the flows of a hash may be sent to. */
__noinline int trace_choice(__u64 hash, __u32 owner, __u32 service)
{
	struct table *table = bpf_map_lookup_elem(&tables, &service);
	struct record *r = record_at_hand();
	__u32 slot = flow_slot(hash), row;

	if (!table || !r)
		return 0;
	row = row_at(table, slot);
	r->slot = slot;
	r->row = row;
	r->second = second_of(table, slot, ROW_CURRENT(row));
	r->owner = owner;
	r->known |= RECORD_SLOT;
	return 0;
}

/* trace_named notes whom a connection ID names. */
__noinline int trace_named(__u32 backend)
{
	struct record *r = record_at_hand();

	if (r)
		r->named = backend;
	return 0;
}

/* trace_site notes which other site is asked, whether or not it can be. */
__noinline int trace_site(__u32 site)
{
	struct record *r = record_at_hand();

	if (!r)
		return 0;
	r->site = site;
	r->known |= RECORD_SITE;
	return 0;
}

/* trace_round notes the round of a miss, by the next one; 0 is no miss. */
__noinline int trace_round(__u32 next)
{
	struct record *r = record_at_hand();

	if (!r || !next)
		return 0;
	r->round = next - 1;
	r->known |= RECORD_ROUND;
	return 0;
}

/* trace_flow notes whose flow a packet is of, or speaks of, that was in another one. */
static __always_inline void trace_flow(const struct embedded *e, const struct packet *p)
{
	note_flow(e, p->flags, p->fragment);
}

/* trace_vip notes which VIP was found. */
static __always_inline void trace_vip(const struct vip *v)
{
	note_vip(v->service, v->number);
}

/* same tells whether two addresses are the same where a mask is set. */
static __always_inline int same(const union address *a, const union address *b, const union address *mask)
{
	return !((a->halves[0] ^ b->halves[0]) & mask->halves[0]) && !((a->halves[1] ^ b->halves[1]) & mask->halves[1]);
}

static __always_inline int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* is_wanted tells whether a record is of the wanted client and VIP. What has no ports is
 * of all VIPs of its address.
 */
static __always_inline int is_wanted(const struct trace *w, const struct record *r)
{
	if (!same(&r->client, &w->client, &w->client_mask) || !same(&r->vip, &w->vip, &w->vip_mask))
		return 0;
	if (w->port && !r->portless && r->vip_port != w->port)
		return 0;
	return !w->protocol || r->protocol == w->protocol || (r->portless && is_icmp(r->protocol));
}

/* describe makes a new record of what a frame says of itself. It tells whether that may
 * be wanted: what is encapsulated, and an error's flow, are not known before.
 */
static __always_inline int describe(struct xdp_md *ctx, const struct trace *w, const struct host *h,
				    struct record *r)
{
	struct packet p = {};

	if (parse(ctx, &p) == NOT_IP)
		return 0;
	r->source = p.source;
	r->client = p.source;
	r->vip = p.destination;
	r->client_port = p.source_port;
	r->vip_port = p.destination_port;
	r->protocol = p.protocol;
	r->flags = p.flags;
	r->portless = has_no_ports(p.fragment, p.protocol);
	r->length = p.length;
	r->known = 0;
	r->named = 0;
	if (p.family == AF_INET6 && behaviour_of(&h->domain, &p.destination))
		return 1;
	return is_icmp(p.protocol) ? same(&r->vip, &w->vip, &w->vip_mask) : is_wanted(w, r);
}

/* snap copies the begin of a frame. */
static __always_inline __u32 snap(struct xdp_md *ctx, __u8 *to)
{
	__u32 length = bpf_xdp_get_buff_len(ctx), n = length;

	barrier_var(n); /* of which the verifier sees the bound */
	if (n > TRACE_SNAP)
		n = TRACE_SNAP;
	if (n > 0 && bpf_xdp_load_bytes(ctx, 0, to, n))
		return 0;
	return length;
}

static __always_inline __u64 counted(__u32 reason)
{
	struct reason_count *n = bpf_map_lookup_elem(&reasons, &reason);

	return n ? n->packets : 0;
}

/* begin_trace looks at a packet that may be wanted, and tells whether it did. When nobody
 * reads any more, the trace ends here.
 */
__noinline int begin_trace(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 now = bpf_ktime_get_coarse_ns();
	struct trace *w = bpf_map_lookup_elem(&traces, &zero);
	struct cpu_trace *t = trace_of_cpu();
	struct host *h = this_host();

	if (!w || !t || !h)
		return 0;
	t->on = 0;
	if (now > w->until) {
		h->traced = 0;
		return 0;
	}
	if (t->interval != now / TRACE_INTERVAL) {
		t->interval = now / TRACE_INTERVAL;
		t->looks = 0;
		t->told = 0;
	}
	if (t->looks >= TRACE_LOOKS) {
		t->unseen++;
		return 0;
	}
	if (!describe(ctx, w, h, &t->record) || t->matched++ % (w->every ?: 1))
		return 0;
	t->looks++;
	t->record.time = bpf_ktime_get_ns();
	t->record.session = w->session;
	t->record.device = ctx->ingress_ifindex;
	t->record.came = snap(ctx, t->record.before);
	for (__u32 i = 0; i < REASONS; i++)
		t->counted[i] = counted(i);
	t->on = 1;
	return 1;
}

/* end_trace writes the record of a packet that was looked at, if it is wanted. */
__noinline int end_trace(struct xdp_md *ctx, int verdict)
{
	__u32 zero = 0, became = 0;
	struct trace *w = bpf_map_lookup_elem(&traces, &zero);
	struct cpu_trace *t = trace_of_cpu();

	if (!w || !t)
		return 0;
	t->on = 0;
	for (__u32 i = 0; i < REASONS; i++)
		became |= (counted(i) != t->counted[i]) << i;
	if (!(became & w->reasons) || !is_wanted(w, &t->record))
		return 0;
	if (t->told >= TRACE_RECORDS) {
		t->limited++;
		return 0;
	}
	t->told++;
	t->record.reasons = became;
	t->record.verdict = verdict;
	t->record.left = verdict == XDP_ABORTED || verdict == XDP_DROP ? 0 : snap(ctx, t->record.after);
	if (bpf_ringbuf_output(&records, &t->record, sizeof(t->record), 0))
		t->lost++;
	return 0;
}

#endif
