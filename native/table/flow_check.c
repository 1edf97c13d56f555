/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_check.c - Assert every invariant of the flow table
 *
 * For tests, and for debug builds after each mutation. Own bugs only: nothing
 * a guest sends can lead here.
 */

#include <assert.h>
#include <string.h>

#include "table/flow_cluster.h"
#include "table/flow_hash.h"
#include "table/meter.h"
#include "table/ready.h"

/* check_free() - Zeros, but for generation and the header of the run */
static void check_free(const struct flow_table *ft, uint32_t i, bool first)
{
	static const struct flow zero;
	struct flow copy = ft->flows[i];

	copy.rw.generation = 0;
	if (first)
		memset(copy.priv, 0, sizeof(struct flow_run));
	assert(!memcmp(&copy, &zero, sizeof(copy)));
}

/* check_runs() - Runs rise, do not touch, and are zero
 * Return: how many entries below top they hold */
static uint32_t check_runs(const struct flow_table *ft)
{
	uint32_t entries = 0, runs = 0, starts = 0;
	uint32_t end = 0;
	uint32_t run;

	for (uint32_t w = 0; w <= ft->max / 64; w++)
		starts += (uint32_t)__builtin_popcountll(ft->run_map[w]);
	for (run = ft->first_free; run < ft->top;) {
		const struct flow_run *r = flow_run_at(ft, run);

		assert(run > end || !end);
		assert(r->count && r->count < ft->top - run);
		for (uint32_t i = 0; i < r->count; i++)
			check_free(ft, run + i, !i);
		end = run + r->count;
		entries += r->count;
		runs++;
		assert(ft->run_map[run / 64] >> run % 64 & 1);
		run = r->next;
	}
	assert(run == ft->top);
	assert(starts == runs);
	return entries;
}

static bool is_marked(const struct flow_table *ft, uint32_t i)
{
	return ft->closing_map[i / 64] >> i % 64 & 1;
}

/* check_entry() - The fields of one used entry agree with each other */
static void check_entry(const struct flow_table *ft, const struct flow *flow)
{
	const struct flow_common *f = &flow->f;
	uint32_t i = flow_index(ft, flow);

	assert(f->state < FLOW_NUM_STATES && f->generation);
	assert((f->state != FLOW_ACTIVE) == (flow == ft->making));
	assert((f->pif[INISIDE] != PIF_NONE) == (f->state >= FLOW_INI));
	assert((f->pif[TGTSIDE] != PIF_NONE) == (f->state >= FLOW_TGT));
	assert((f->type != FLOW_TYPE_NONE) == (f->state >= FLOW_TYPED));
	assert(f->closed == is_marked(ft, i));
	if (f->closed)
		assert(f->state == FLOW_ACTIVE && !f->timer_at);
	if (f->closed || f->state != FLOW_ACTIVE)
		assert(!f->hashed[INISIDE] && !f->hashed[TGTSIDE]);
}

static void check_entries(const struct flow_table *ft)
{
	uint32_t used = 0, active = 0, closing = 0, hashed = 0, sockets = 0;

	for (uint32_t i = 0; i < ft->top; i++) {
		const struct flow_common *f = &ft->flows[i].f;

		if (f->state == FLOW_FREE) {
			assert(!is_marked(ft, i));
			continue;
		}
		check_entry(ft, &ft->flows[i]);
		used++;
		active += f->state == FLOW_ACTIVE;
		closing += f->closed;
		hashed += f->hashed[INISIDE] + f->hashed[TGTSIDE];
		sockets += (f->fd[INISIDE] >= 0) + (f->fd[TGTSIDE] >= 0);
		if (f->closed)
			assert(i >= ft->closing_lo && i <= ft->closing_hi);
	}
	/* Runs hold free entries only: so they hold all of them */
	assert(used + check_runs(ft) == ft->top);
	assert(active == ft->active && closing == ft->closing);
	assert(hashed == ft->hash_used);
	assert(sockets <= ft->sockets); /* others are shared */
	assert(used == active + (ft->making ? 1 : 0));
}

/* check_reach() - No empty bucket between where a key starts and where it is */
static void check_reach(const struct flow_table *ft, uint32_t bucket)
{
	uint32_t i = ft->hash[bucket].tag & ft->hash_mask;

	for (; i != bucket; i = (i + 1) & ft->hash_mask)
		assert(!flow_sidx_is_none(ft->hash[i].sidx));
}

static void check_hash(const struct flow_table *ft)
{
	uint32_t used = 0;

	assert(ft->hash == ft->hash_area + ft->hash_mask + 1);
	for (uint32_t i = 0; i <= ft->hash_mask; i++) {
		flow_sidx_t sidx = ft->hash[i].sidx;
		const struct flow *flow;

		if (flow_sidx_is_none(sidx))
			continue;
		assert(sidx.flow < ft->top);
		flow = &ft->flows[sidx.flow];
		/* With hashed == used, this means: each side exactly once */
		assert(flow->f.hashed[sidx.side]);
		assert(ft->hash[i].tag ==
		       flow_hash_of(ft, flow_type_proto[flow->f.type],
				    flow->f.pif[sidx.side],
				    &flow->f.side[sidx.side]));
		check_reach(ft, i);
		used++;
	}
	assert(used == ft->hash_used && used <= ft->hash_mask);
}

void flow_table_check(const struct flow_table *ft)
{
	assert(ft->top <= ft->max && ft->first_free <= ft->top);
	assert(ft->timers->flows == ft->flows && ft->log->base == ft->flows);
	check_entries(ft);
	check_hash(ft);
	timers_check(ft->timers, ft->top);
	ready_check(ft);
	meters_check(ft);
}
