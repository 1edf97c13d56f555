/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_cluster.c - Take entries out of free clusters, and put them back */

#include "table/flow_cluster.h"

#include <assert.h>

#define MAP_BITS 64 /* bits of a word of @run_map */

static void run_set(struct flow_table *ft, uint32_t i, uint32_t entries,
		    uint32_t next)
{
	*flow_run_at(ft, i) = (struct flow_run){ entries, next };
	ft->run_map[i / MAP_BITS] |= 1ULL << i % MAP_BITS;
}

static void run_clear(struct flow_table *ft, uint32_t i)
{
	*flow_run_at(ft, i) = (struct flow_run){ 0 };
	ft->run_map[i / MAP_BITS] &= ~(1ULL << i % MAP_BITS);
}

/* flow_run_before() - Run that starts below an entry, or FLOW_INDEX_NONE */
uint32_t flow_run_before(const struct flow_table *ft, uint32_t i)
{
	uint32_t w = i / MAP_BITS;
	uint64_t word = ft->run_map[w] & ((1ULL << i % MAP_BITS) - 1);

	if (i <= ft->first_free)
		return FLOW_INDEX_NONE;
	while (!word)
		word = ft->run_map[--w];
	return w * MAP_BITS + MAP_BITS - 1 - (uint32_t)__builtin_clzll(word);
}

/**
 * flow_run_take() - Take the lowest free entry
 *
 * Return: its index, or FLOW_INDEX_NONE when the table is full
 */
uint32_t flow_run_take(struct flow_table *ft)
{
	uint32_t i = ft->first_free;
	struct flow_run run;

	if (i == ft->max)
		return FLOW_INDEX_NONE;
	if (i == ft->top) {
		ft->first_free = ++ft->top;
		return i;
	}

	run = *flow_run_at(ft, i);
	run_clear(ft, i);
	if (run.count > 1) {
		run_set(ft, i + 1, run.count - 1, run.next);
		ft->first_free = i + 1;
	} else {
		ft->first_free = run.next;
	}
	return i;
}

/**
 * flow_run_add() - Put an entry back, and merge it with its neighbours
 * @i:		Entry, zeroed already
 */
void flow_run_add(struct flow_table *ft, uint32_t i)
{
	uint32_t prev = flow_run_before(ft, i);
	uint32_t *link = prev == FLOW_INDEX_NONE ? &ft->first_free :
						   &flow_run_at(ft, prev)->next;
	uint32_t next = *link;
	uint32_t start = i;
	uint32_t end = i + 1;

	assert(i < ft->top && next > i);

	if (prev != FLOW_INDEX_NONE && prev + flow_run_at(ft, prev)->count == i)
		start = prev;
	else
		*link = i;

	if (end == next && next != ft->top) {
		struct flow_run run = *flow_run_at(ft, next);

		run_clear(ft, next);
		end += run.count;
		next = run.next;
	}
	if (end != ft->top) {
		run_set(ft, start, end - start, next);
		return;
	}
	/* Whatever led to the last run leads to the new top, the same index */
	run_clear(ft, start);
	ft->top = start;
}
