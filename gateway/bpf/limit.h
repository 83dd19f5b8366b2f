/* SPDX-License-Identifier: GPL-2.0 */
/* What a CPU says or asks for itself is limited: nobody makes it do more by sending
 * more (RFC 4443 §2.4 (f)).
 */
#ifndef RAZOR_LIMIT_H
#define RAZOR_LIMIT_H

#include "maps.h"

#define LIMIT_INTERVAL 100000000 /* ns */
#define LIMIT_MOST 100		 /* of a CPU in an interval */

static __always_inline int within_limit(struct limit *l)
{
	__u64 now = bpf_ktime_get_coarse_ns() / LIMIT_INTERVAL;

	if (l->interval != now) {
		l->interval = now;
		l->done = 0;
	}
	return l->done++ < LIMIT_MOST;
}

#endif
