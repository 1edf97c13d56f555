/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flood.c - What happens when the guest is refused far too much */

#include "core/flood.h"

#include <string.h>

#include "core/datapath.h"

void flood_init(struct flood *f)
{
	*f = (struct flood){ .end = UINT64_MAX };
}

void flood_refused(struct datapath *dp, unsigned kind)
{
	struct flood *f = &dp->flood;

	if (f->end == UINT64_MAX)
		f->end = dp->ctx.now + FLOOD_WINDOW;
	f->refused[kind]++;
}

/* drop() - Have these kinds dropped from now on, and no others
 * Return: false if that cannot be: they are read and refused, as before */
static bool drop(struct datapath *dp, uint32_t kinds)
{
	struct flood *f = &dp->flood;

	if (tap_sieve(&dp->ctx.tap, kinds))
		return false;
	if (kinds & ~f->dropped)
		count(&dp->ctx.cnt, CNT_FLOODS_DROPPED);
	f->dropped = kinds;
	return true;
}

/* end_window() - Let everything through again, and see whether it is still so */
static void end_window(struct datapath *dp)
{
	struct flood *f = &dp->flood;

	if (f->dropped)
		(void)drop(dp, 0);
	memset(f->refused, 0, sizeof(f->refused));
	/* What could not be undone is tried again */
	f->end = f->dropped ? dp->ctx.now + FLOOD_WINDOW : UINT64_MAX;
}

void flood_look(struct datapath *dp)
{
	struct flood *f = &dp->flood;
	struct ctx *c = &dp->ctx;
	uint32_t kinds = 0;

	if (f->end == UINT64_MAX)
		return;
	if (c->now >= f->end) {
		end_window(dp);
		return;
	}
	for (unsigned kind = 0; kind < SIEVE_NUM; kind++)
		if (f->refused[kind] >= FLOOD_REFUSED)
			kinds |= 1U << kind;
	if (f->refused[SIEVE_SYN] >= FLOOD_REFUSED ||
	    f->refused[FLOOD_OTHER] >= FLOOD_REFUSED)
		admit_flooded(&c->admit, c->now);
	if (kinds & ~f->dropped && drop(dp, kinds | f->dropped))
		f->end = c->now + FLOOD_WINDOW;
}
