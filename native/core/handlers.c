/* SPDX-License-Identifier: GPL-2.0-or-later */
/* handlers.c - The table of handlers: a new protocol is one row here */

#include "core/handlers.h"

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

void handlers_register(struct ctx *c)
{
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		if (handlers[i])
			c->epoll.interest[i] = handlers[i]->interest;
	}
}

void handlers_flush(struct ctx *c, bool sleep)
{
	for (unsigned i = 0; i < FLOW_NUM_TYPES; i++) {
		if (handlers[i] && handlers[i]->flush)
			handlers[i]->flush(c, sleep);
	}
}

bool handlers_defer(void *ctx, struct flow *flow)
{
	return handlers[flow->f.type]->defer(ctx, flow);
}
