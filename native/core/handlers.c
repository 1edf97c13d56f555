/* SPDX-License-Identifier: GPL-2.0-or-later */
/* handlers.c - The table of handlers: a new protocol is one row here */

#include "core/handlers.h"

#include <assert.h>
#include <netinet/in.h>

const struct handler *const handlers[FLOW_NUM_TYPES] = {
	[FLOW_TCP] = &tcp_handler,     [FLOW_TCP_SPLICE] = &splice_handler,
	[FLOW_PING4] = &ping4_handler, [FLOW_PING6] = &ping6_handler,
	[FLOW_UDP] = &udp_handler,     [FLOW_UDP_SPLICE] = &udp_splice_handler,
};

enum flow_type handlers_type(uint8_t ipproto, bool splices)
{
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		if (handlers[i] && handlers[i]->ipproto == ipproto &&
		    handlers[i]->splices == splices)
			return (enum flow_type)i;
	}
	return FLOW_TYPE_NONE;
}

int handlers_init(struct ctx *c, const uint8_t secret[16])
{
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		int err;

		if (!handlers[i])
			continue;
		c->epoll.interest[i] = handlers[i]->interest;
		err = handlers[i]->init ? handlers[i]->init(c, secret) : 0;
		if (err)
			return err;
	}
	return 0;
}

void handlers_fini(struct ctx *c)
{
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		if (c->shared[i])
			handlers[i]->fini(c);
	}
}

bool handlers_flush(struct ctx *c, bool sleep)
{
	bool more = false;

	budget_open(&c->budget, WORK_ROUND, 1);
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		if (handlers[i] && handlers[i]->flush &&
		    budget_next(&c->budget))
			more |= handlers[i]->flush(c, sleep);
	}
	return more;
}

void handlers_close(struct ctx *c, struct flow *flow, enum flow_why why)
{
	const struct handler *h = handlers[flow->f.type];

	if (h->close)
		h->close(c, flow, why);
	else
		flow_mark_closed(&c->ft, flow, why, 0, c->now);
	assert(flow->f.closed);
}

bool handlers_defer(void *ctx, struct flow *flow)
{
	return handlers[flow->f.type]->defer(ctx, flow);
}
