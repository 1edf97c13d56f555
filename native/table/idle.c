/* SPDX-License-Identifier: GPL-2.0-or-later */
/* idle.c - Datagram flows in the order in which they may have to go
 *
 * Queues through the entries of the flow table. Using a flow does not move
 * it: whoever looks for a victim gives flows in use a second chance. Links are
 * indexes plus one, as in ready.c.
 */

#include "table/idle.h"

#include <netinet/in.h>

#define IDLE_LOOK 16 /* flows looked at for one victim */

static bool is_outside(const struct flow *flow)
{
	return flow->f.pif[INISIDE] == PIF_HOST;
}

static struct idle_list *list_of(struct flow_table *ft, const struct flow *flow)
{
	if (is_outside(flow))
		return &ft->idle[IDLE_OUTSIDE];
	return &ft->idle[flow->f.sharing ? IDLE_SHARING : IDLE_GUEST];
}

void idle_add(struct flow_table *ft, struct flow *flow)
{
	struct idle_list *list = list_of(ft, flow);
	uint32_t link = flow_index(ft, flow) + 1;

	ft->outside += is_outside(flow);
	if (flow_type_proto[flow->f.type] == IPPROTO_TCP)
		return;
	flow->rw.idle_prev = list->tail;
	if (list->tail)
		ft->flows[list->tail - 1].rw.idle_next = link;
	else
		list->head = link;
	list->tail = link;
}

void idle_remove(struct flow_table *ft, struct flow *flow)
{
	struct idle_list *list = list_of(ft, flow);
	struct flow_common *f = &flow->rw;

	ft->outside -= is_outside(flow);
	if (flow_type_proto[f->type] == IPPROTO_TCP)
		return;
	if (f->idle_prev)
		ft->flows[f->idle_prev - 1].rw.idle_next = f->idle_next;
	else
		list->head = f->idle_next;
	if (f->idle_next)
		ft->flows[f->idle_next - 1].rw.idle_prev = f->idle_prev;
	else
		list->tail = f->idle_prev;
	f->idle_next = f->idle_prev = 0;
}

void idle_set_sharing(struct flow_table *ft, struct flow *flow, bool sharing)
{
	bool listed = flow->f.state == FLOW_ACTIVE && !flow->f.closed;

	if (listed)
		idle_remove(ft, flow);
	flow->rw.sharing = sharing;
	if (listed)
		idle_add(ft, flow);
}

struct flow *idle_oldest(struct flow_table *ft, enum idle_kind kind,
			 enum flow_type type, uint64_t now)
{
	for (unsigned i = 0; i < IDLE_LOOK && ft->idle[kind].head; i++) {
		struct flow *flow = &ft->flows[ft->idle[kind].head - 1];

		if (now >= flow->f.last_use + IDLE_MIN &&
		    (type == FLOW_TYPE_NONE || flow->f.type == type))
			return flow;
		idle_remove(ft, flow);
		idle_add(ft, flow);
	}
	return NULL;
}
