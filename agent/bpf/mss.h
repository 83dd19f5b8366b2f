/* SPDX-License-Identifier: GPL-2.0 */
/* The largest segment that a host takes, as it says in a SYN (RFC 9293 §3.7.1). */
#ifndef RAZOR_MSS_H
#define RAZOR_MSS_H

#include "parse.h"

#define TCP_OPTIONS 20 /* where they begin in the header */
#define MOST_OPTIONS 40

#define TCP_OPTION_END 0
#define TCP_OPTION_NOTHING 1
#define TCP_OPTION_MSS 2
#define MSS_LENGTH 4

/* mss is where the value of the option is, in bytes from the start of options, and what
 * it is. At 0 there is none.
 */
struct mss {
	__u32 at;
	__be16 value;
};

/* search is the way through the options. */
struct search {
	__u8 options[MOST_OPTIONS];
	__u32 length;
	__u32 at;
	struct mss found;
};

/* next_option looks at one option; 1 ends the search. As the body of a loop of the
 * kernel's it is verified once.
 */
static int next_option(__u32 n __attribute__((unused)), struct search *s)
{
	__u32 i = s->at;
	__u8 kind, size;

	if (i > MOST_OPTIONS - MSS_LENGTH || i + MSS_LENGTH > s->length)
		return 1;
	kind = s->options[i];
	size = s->options[i + 1];
	if (kind == TCP_OPTION_NOTHING) {
		s->at = i + 1;
		return 0;
	}
	if (kind == TCP_OPTION_MSS && size == MSS_LENGTH) {
		s->found.at = i + 2;
		s->found.value = s->options[i + 2] | s->options[i + 3] << 8;
		return 1;
	}
	s->at = i + size;
	return kind == TCP_OPTION_END || size < 2;
}

/* find_mss looks for the option in what is in s. */
static __always_inline struct mss find_mss(struct search *s, __u32 length)
{
	s->length = length;
	bpf_loop(MOST_OPTIONS, next_option, s, 0);
	return s->found;
}

/* in_sum is a value as the checksum has it, whose words it need not begin with. */
static __always_inline __be16 in_sum(const struct mss *m, __be16 value)
{
	return m->at & 1 ? __builtin_bswap16(value) : value;
}

#endif
