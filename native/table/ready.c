/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ready.c - The ready list: flows that have something left to do
 *
 * A queue through the entries of the flow table, in both directions, so that a
 * flow can leave from the middle. Links are indexes plus one: the zeros of a
 * free entry mean "nobody".
 */

#include "table/ready.h"

#include <assert.h>

void ready_add(struct flow_table *ft, struct flow *flow, unsigned sidei)
{
	uint32_t link = flow_index(ft, flow) + 1;
	struct ready_list *list = &ft->ready;
	bool queued = flow->f.ready;

	assert(flow->f.state == FLOW_ACTIVE && !flow->f.closed);
	flow->rw.ready |= (uint8_t)(1U << sidei);
	if (queued)
		return;
	flow->rw.ready_prev = list->tail;
	if (list->tail)
		ft->flows[list->tail - 1].rw.ready_next = link;
	else
		list->head = link;
	list->tail = link;
	list->count++;
	count(ft->cnt, CNT_READY);
}

void ready_remove(struct flow_table *ft, struct flow *flow)
{
	struct ready_list *list = &ft->ready;
	struct flow_common *f = &flow->rw;

	if (!f->ready)
		return;
	if (f->ready_prev)
		ft->flows[f->ready_prev - 1].rw.ready_next = f->ready_next;
	else
		list->head = f->ready_next;
	if (f->ready_next)
		ft->flows[f->ready_next - 1].rw.ready_prev = f->ready_prev;
	else
		list->tail = f->ready_prev;
	f->ready_next = f->ready_prev = 0;
	f->ready = 0;
	list->count--;
}

struct flow *ready_take(struct flow_table *ft, unsigned *ret_sides)
{
	struct flow *flow;

	if (!ft->ready.head)
		return NULL;
	flow = &ft->flows[ft->ready.head - 1];
	*ret_sides = flow->f.ready;
	ready_remove(ft, flow);
	return flow;
}

void ready_check(const struct flow_table *ft)
{
	uint32_t prev = 0, n = 0;

	for (uint32_t link = ft->ready.head; link; n++) {
		const struct flow_common *f = &ft->flows[link - 1].f;

		assert(link <= ft->top && n < ft->top);
		assert(f->state == FLOW_ACTIVE && !f->closed && f->ready);
		assert(f->ready_prev == prev);
		prev = link;
		link = f->ready_next;
	}
	assert(prev == ft->ready.tail && n == ft->ready.count);
}
