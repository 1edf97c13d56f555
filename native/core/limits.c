/* SPDX-License-Identifier: GPL-2.0-or-later */
/* limits.c - What the loop does about limits: wakes those who wait, and ends
 * flows whose bytes are used up */

#include "core/limits.h"

#include "core/handlers.h"

#define LOOKED_AT 64 /* flows looked at in a round, to be ended */

/** struct found - Flows of a page
 * @id:		Their handles
 * @n:		Entries
 */
struct found {
	const struct flow_table *ft;
	uint64_t id[LOOKED_AT];
	unsigned n;
};

static void note(void *arg, const struct flow *flow)
{
	struct found *found = arg;

	if (meter_has(flow))
		found->id[found->n++] = flow_id(found->ft, flow);
}

/* end_some() - Flows of meters whose bytes are used up, a page at a time */
static void end_some(struct ctx *c)
{
	struct meters *meters = c->ft.meters;
	struct found found = { .ft = &c->ft };

	flow_snapshot(&c->ft, &meters->cursor, note, &found, LOOKED_AT);
	meters->closing = meters->cursor;
	for (unsigned i = 0; i < found.n; i++) {
		struct flow *flow = flow_by_id(&c->ft, found.id[i]);

		if (flow && meters_end(&c->ft, flow))
			handlers_close(c, flow, WHY_LIMIT);
	}
}

void limits_obey(struct ctx *c)
{
	meters_wake(&c->ft, c->now);
	if (limits_is_wanted(c))
		end_some(c);
}
