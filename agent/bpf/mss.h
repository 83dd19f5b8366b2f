/* SPDX-License-Identifier: GPL-2.0 */
/* The largest segment that a host takes, as it says in a SYN (RFC 9293 §3.7.1). */
#ifndef RAZOR_MSS_H
#define RAZOR_MSS_H

#include "parse.h"

#define TCP_OPTIONS 20 /* where they begin in the header */
#define MOST_OPTIONS 40
#define OPTIONS_ROOM 64 /* of a buffer of options, which is 0 behind them */

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

/* find_mss looks for the option. */
static __always_inline struct mss find_mss(const __u8 *options, __u32 length)
{
	struct mss none = {}, m = {};
	__u32 i = 0;

	for (int n = 0; n < MOST_OPTIONS; n++) {
		__u8 kind, size;

		if (i + MSS_LENGTH > length || i + MSS_LENGTH > MOST_OPTIONS)
			return none;
		kind = options[i & (OPTIONS_ROOM - 1)];
		size = options[(i + 1) & (OPTIONS_ROOM - 1)];
		if (kind == TCP_OPTION_NOTHING) {
			i++;
			continue;
		}
		if (kind == TCP_OPTION_MSS && size == MSS_LENGTH) {
			m.at = i + 2;
			m.value = options[(i + 2) & (OPTIONS_ROOM - 1)] |
				  options[(i + 3) & (OPTIONS_ROOM - 1)] << 8;
			return m;
		}
		if (kind == TCP_OPTION_END || size < 2)
			return none;
		i += size;
	}
	return none;
}

/* in_sum is a value as the checksum has it, whose words it need not begin with. */
static __always_inline __be16 in_sum(const struct mss *m, __be16 value)
{
	return m->at & 1 ? __builtin_bswap16(value) : value;
}

#endif
