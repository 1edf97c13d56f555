/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_table.c - The flow table: life of entries, closing, listing
 *
 * Owns @state and everything else of struct flow_common that a step fills. An
 * entry walks FREE, NEW, INI, TGT, TYPED, ACTIVE, one function a step, each of
 * which checks the step before, and logs. At most one flow is being made, and
 * within one event: nobody ever meets an incomplete flow.
 *
 * Closing takes two steps, since the same batch of events may still refer to
 * the flow: flow_mark_closed() makes it unreachable, flow_defer_scan() frees
 * it at a safe point. A bitmap says what was marked, so that the scan costs
 * what it frees, not what is active. See docs/flow-table.md.
 */

#include "table/flow_table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "base/room.h"
#include "table/flow_cluster.h"
#include "table/flow_hash.h"
#include "table/idle.h"
#include "table/meter.h"
#include "table/ready.h"

#define MAP_BITS    64	 /* bits of a word of @closing_map */
#define RANGE_ALIGN 4096 /* each part of the range starts on a page */

static size_t round_up(size_t n)
{
	return (n + RANGE_ALIGN - 1) / RANGE_ALIGN * RANGE_ALIGN;
}

int flow_table_init(struct flow_table *ft, uint32_t max,
		    const struct siphash_key *key, struct flow_log *log,
		    struct counters *cnt, struct timers *timers)
{
	size_t flows, map, hash, meters, all;
	char *base;

	if (!max || max > FLOW_TABLE_MAX)
		return -EINVAL;
	max = room_max(sizeof(struct flow), max);
	flows = round_up(max * sizeof(struct flow));
	map = round_up((max / MAP_BITS + 1) * sizeof(uint64_t));
	hash = round_up(flow_hash_area(max));
	meters = round_up(sizeof(struct meters));
	all = flows + hash + 2 * map + meters;
	base = room_reserve(all);
	if (base == MAP_FAILED)
		return -ENOMEM;

	*ft = (struct flow_table){
		.flows = (struct flow *)(void *)base,
		.max = max,
		.closing_lo = UINT32_MAX,
		.closing_map = (uint64_t *)(void *)(base + flows + hash),
		.run_map = (uint64_t *)(void *)(base + flows + hash + map),
		.meters_room = (struct meters *)(void *)(base + all - meters),
		.key = *key,
		.log = log,
		.cnt = cnt,
		.timers = timers,
		.reserved = all,
		.hash_area = (struct flow_bucket *)(void *)(base + flows),
	};
	flow_hash_init(ft);
	log->base = ft->flows;
	timers->flows = ft->flows;
	return 0;
}

void flow_table_free(struct flow_table *ft)
{
	if (ft->flows)
		munmap(ft->flows, ft->reserved);
	ft->flows = NULL;
}

/* changed() - After each mutation; in a debug build, check everything
 *
 * A check costs as much as the table is large: in large tables, not each time.
 */
static void changed(struct flow_table *ft)
{
#ifdef PASSTPY_DEBUG
	if (++ft->unchecked * 64ULL < (uint64_t)ft->top + ft->hash_mask / 8)
		return;
	ft->unchecked = 0;
	flow_table_check(ft);
#else
	(void)ft;
#endif
}

static void set_state(struct flow_table *ft, struct flow *flow,
		      enum flow_state from, enum flow_state to, uint64_t now)
{
	assert(flow->f.state == from);
	flow->rw.state = (uint8_t)to;
	flow_log(ft->log, now, FLOW_STATE, flow, from, to, 0, 0);
}

/* entry_clear() - Zeros, as entries of a free cluster are */
static void entry_clear(struct flow *flow)
{
	uint32_t generation = flow->f.generation;

	memset(flow, 0, sizeof(*flow));
	flow->rw.generation = generation;
}

/**
 * flow_alloc() - FREE to NEW: start making a flow
 *
 * Return: zeroed entry, fds -1; NULL when the table is full (counted)
 */
struct flow *flow_alloc(struct flow_table *ft, uint64_t now)
{
	uint32_t i = flow_run_take(ft);
	struct flow *flow;

	assert(!ft->making);
	if (i == FLOW_INDEX_NONE) {
		count(ft->cnt, CNT_DROP_TABLE_FULL);
		flow_log(ft->log, now, TABLE_FULL, NULL, ft->max, 0, 0, 0);
		return NULL;
	}
	flow = &ft->flows[i];
	if (!++flow->rw.generation)
		flow->rw.generation = 1;
	flow->rw.fd[INISIDE] = flow->rw.fd[TGTSIDE] = -1;
	flow->rw.listener = -1;
	flow->rw.created = now;
	flow->rw.last_use = now;
	ft->making = flow;
	set_state(ft, flow, FLOW_FREE, FLOW_NEW, now);
	changed(ft);
	return flow;
}

/* flow_initiate() - NEW to INI: who started it, and what it asked for */
void flow_initiate(struct flow_table *ft, struct flow *flow, enum pif pif,
		   const struct flowside *side, uint64_t now)
{
	assert(flow == ft->making && pif != PIF_NONE);
	flow->rw.pif[INISIDE] = (uint8_t)pif;
	flow->rw.side[INISIDE] = *side;
	set_state(ft, flow, FLOW_NEW, FLOW_INI, now);
	changed(ft);
}

/* flow_target() - INI to TGT: where the verdict sends it */
void flow_target(struct flow_table *ft, struct flow *flow,
		 const struct verdict *v, uint64_t now)
{
	assert(flow == ft->making && v->pif != PIF_NONE);
	flow->rw.pif[TGTSIDE] = v->pif;
	flow->rw.side[TGTSIDE] = v->side;
	flow->rw.rule = v->rule;
	flow->rw.policy = v->generation;
	meters_find(ft, flow);
	set_state(ft, flow, FLOW_INI, FLOW_TGT, now);
	changed(ft);
}

/* flow_set_type() - TGT to TYPED: which handler it is for */
void flow_set_type(struct flow_table *ft, struct flow *flow,
		   enum flow_type type, uint64_t now)
{
	assert(flow == ft->making && type != FLOW_TYPE_NONE);
	flow->rw.type = (uint8_t)type;
	set_state(ft, flow, FLOW_TGT, FLOW_TYPED, now);
	changed(ft);
}

/* flow_activate() - TYPED to ACTIVE: complete sides can be found from now on */
void flow_activate(struct flow_table *ft, struct flow *flow, uint64_t now)
{
	assert(flow == ft->making);
	set_state(ft, flow, FLOW_TYPED, FLOW_ACTIVE, now);
	flow_log_life(ft->log, now, FLOW_OPENED, flow, 0, 0);
	for (unsigned i = 0; i < SIDES; i++) {
		if (flow_hash_complete(flow, i))
			flow_hash_insert(ft, flow_sidx(ft, flow, i));
	}
	ft->making = NULL;
	ft->active++;
	idle_add(ft, flow);
	meters_enter(ft, flow);
	count(ft->cnt, CNT_FLOWS_OPENED);
	changed(ft);
}

void flow_set_rule(struct flow_table *ft, struct flow *flow, uint32_t rule,
		   uint32_t policy)
{
	assert(flow->f.state == FLOW_ACTIVE && !flow->f.closed);
	for (unsigned i = 0; i < SIDES; i++)
		if (flow->f.waits[i]) /* there may be nothing to wait for now */
			ready_add(ft, flow, i);
	meters_leave(ft, flow);
	flow->rw.rule = rule;
	flow->rw.policy = policy;
	meters_find(ft, flow);
	meters_enter(ft, flow);
}

/**
 * flow_alloc_cancel() - Any of NEW to TYPED, to FREE
 * @flow:	The newest allocation; its fds are closed already
 */
void flow_alloc_cancel(struct flow_table *ft, struct flow *flow, uint64_t now)
{
	assert(flow == ft->making);
	assert(flow->f.state >= FLOW_NEW && flow->f.state <= FLOW_TYPED);

	timer_set(ft->timers, flow, 0);
	set_state(ft, flow, flow->f.state, FLOW_FREE, now);
	entry_clear(flow);
	flow_run_add(ft, flow_index(ft, flow));
	ft->making = NULL;
	changed(ft);
}

void flow_set_our_addr(struct flow *flow, unsigned sidei,
		       const union inany *oaddr, uint16_t oport)
{
	assert(flow->f.state != FLOW_FREE && !flow->f.hashed[sidei]);
	flow->rw.side[sidei].oaddr = *oaddr;
	flow->rw.side[sidei].oport = oport;
}

void flow_set_endpoint(struct flow_table *ft, struct flow *flow, unsigned sidei,
		       const union inany *eaddr, uint16_t eport)
{
	assert(flow->f.state == FLOW_ACTIVE && !flow->f.closed);
	if (flow->f.hashed[sidei])
		flow_hash_remove(ft, flow_sidx(ft, flow, sidei));
	flow->rw.side[sidei].eaddr = *eaddr;
	flow->rw.side[sidei].eport = eport;
	if (flow_hash_complete(flow, sidei))
		flow_hash_insert(ft, flow_sidx(ft, flow, sidei));
	changed(ft);
}

static void closing_add(struct flow_table *ft, uint32_t i)
{
	ft->closing_map[i / MAP_BITS] |= 1ULL << i % MAP_BITS;
	ft->closing_lo = MIN(ft->closing_lo, i);
	ft->closing_hi = MAX(ft->closing_hi, i);
}

void flow_mark_closed(struct flow_table *ft, struct flow *flow,
		      enum flow_why why, int err, uint64_t now)
{
	assert(flow->f.state == FLOW_ACTIVE && !flow->f.closed);

	for (unsigned i = 0; i < SIDES; i++)
		if (flow->f.hashed[i])
			flow_hash_remove(ft, flow_sidx(ft, flow, i));
	timer_set(ft->timers, flow, 0);
	ready_remove(ft, flow);
	idle_remove(ft, flow);
	meters_leave(ft, flow);
	flow->rw.closed = true;
	flow->rw.why = (uint8_t)why;
	if (!ft->closing++)
		ft->closing_since = now;
	closing_add(ft, flow_index(ft, flow));
	flow_log_life(ft->log, now, FLOW_CLOSED, flow, why, err);
	changed(ft);
}

bool flow_defer_due(const struct flow_table *ft, uint64_t now)
{
	if (!ft->closing)
		return false;
	return ft->closing >= FLOW_DEFER_COUNT || ft->first_free == ft->max ||
	       now >= ft->closing_since + FLOW_DEFER_AGE;
}

/* defer_one() - Have a flow released, and free its entry
 * Return: false if its handler wants to keep it for the next scan */
static bool defer_one(struct flow_table *ft, struct flow *flow,
		      flow_defer_fn defer, void *arg, uint64_t now)
{
	uint32_t i = flow_index(ft, flow);

	assert(flow->f.closed && !flow->f.timer_at);
	if (!defer(arg, flow))
		return false;
	set_state(ft, flow, FLOW_ACTIVE, FLOW_FREE, now);
	entry_clear(flow);
	flow_run_add(ft, i);
	ft->closing_map[i / MAP_BITS] &= ~(1ULL << i % MAP_BITS);
	ft->closing--;
	ft->active--;
	count(ft->cnt, CNT_FLOWS_CLOSED);
	return true;
}

/**
 * flow_defer_scan() - Free what was marked closed, in one walk upwards
 * @defer:	Releases what a flow holds; may refuse, may mark others closed
 *
 * Costs what it frees, and one word for each 64 entries between the lowest and
 * the highest of it: not what is active, and not the free clusters.
 */
void flow_defer_scan(struct flow_table *ft, flow_defer_fn defer, void *arg,
		     uint64_t now)
{
	uint32_t first = ft->closing_lo / MAP_BITS;
	uint32_t last = ft->closing_hi / MAP_BITS;

	assert(!ft->making);
	if (!ft->closing)
		return;
	ft->closing_lo = UINT32_MAX;
	ft->closing_hi = 0;
	for (uint32_t w = first; w <= last; w++) {
		uint64_t word = ft->closing_map[w];

		for (; word; word &= word - 1) {
			uint32_t i =
				w * MAP_BITS + (uint32_t)__builtin_ctzll(word);

			if (!defer_one(ft, &ft->flows[i], defer, arg, now))
				closing_add(ft, i);
		}
	}
	ft->closing_since = now;
	changed(ft);
}

struct flow *flow_at(const struct flow_table *ft, flow_sidx_t sidx)
{
	struct flow *flow;

	if (sidx.flow >= ft->top)
		return NULL;
	flow = &ft->flows[sidx.flow];
	return flow->f.state == FLOW_ACTIVE && !flow->f.closed ? flow : NULL;
}

struct flow *flow_by_id(const struct flow_table *ft, uint64_t id)
{
	flow_sidx_t sidx = { .flow = (uint32_t)id };
	struct flow *flow;

	if ((uint32_t)id >= ft->top)
		return NULL;
	flow = flow_at(ft, sidx);
	return flow && flow_id(ft, flow) == id ? flow : NULL;
}

/* skip_run() - First entry from @i on that is in no free cluster, or top */
static uint32_t skip_run(const struct flow_table *ft, uint32_t i)
{
	uint32_t run = flow_run_before(ft, i + 1);

	if (run == FLOW_INDEX_NONE)
		return i;
	return MAX(i, run + flow_run_at(ft, run)->count);
}

void flow_snapshot(const struct flow_table *ft, uint32_t *cursor,
		   void (*fn)(void *arg, const struct flow *flow), void *arg,
		   unsigned limit)
{
	uint32_t i = *cursor;

	for (; i < ft->top && limit; i++) {
		const struct flow *flow = &ft->flows[i];

		if (flow->f.state == FLOW_FREE) {
			i = skip_run(ft, i) - 1;
			continue;
		}
		if (flow->f.state == FLOW_ACTIVE && !flow->f.closed) {
			fn(arg, flow);
			limit--;
		}
	}
	*cursor = i < ft->top ? i : 0;
}
