/* SPDX-License-Identifier: GPL-2.0-or-later */
/* limits.h - What the loop does about limits (table/meter.h) */
#ifndef PASSTPY_CORE_LIMITS_H
#define PASSTPY_CORE_LIMITS_H

#include "core/datapath.h"
#include "table/meter.h"

/* limits_obey() - Call for flows that waited long enough, and end some of those
 * whose bytes are used up */
void limits_obey(struct ctx *c);

/* limits_is_wanted() - Are there more to end? */
static inline bool limits_is_wanted(const struct ctx *c)
{
	return c->ft.meters && c->ft.meters->closing;
}

/* limits_next() - ns when somebody who waits may go on, or UINT64_MAX */
static inline uint64_t limits_next(const struct ctx *c)
{
	return c->ft.meters ? c->ft.meters->next_at : UINT64_MAX;
}

#endif /* PASSTPY_CORE_LIMITS_H */
