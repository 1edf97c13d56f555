/* SPDX-License-Identifier: GPL-2.0-or-later */
/* verbs.c - What may be done to an open flow from outside: end it, put it under
 * another rule, or give it another socket */

#include <errno.h>

#include "core/datapath.h"
#include "core/handlers.h"
#include "core/turn.h"

int datapath_close_flow(struct datapath *dp, uint64_t id, enum flow_why why)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_by_id(&c->ft, id);

	if (!flow)
		return -ESTALE;
	if (!time_is_virtual(c))
		c->now = clock_now();
	handlers_close(c, flow, why);
	return 0;
}

int datapath_adopt(struct datapath *dp, uint64_t id, int fd)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_by_id(&c->ft, id);

	if (!flow)
		return -ESTALE;
	if (!handlers[flow->f.type]->adopt)
		return -EPROTONOSUPPORT;
	if (!time_is_virtual(c))
		c->now = clock_now();
	return handlers[flow->f.type]->adopt(c, flow, fd);
}

int datapath_set_rule(struct datapath *dp, uint64_t id, uint32_t rule,
		      uint32_t generation)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_by_id(&c->ft, id);

	if (!flow)
		return -ESTALE;
	flow_set_rule(&c->ft, flow, rule, generation);
	if (handlers[flow->f.type]->ruled)
		handlers[flow->f.type]->ruled(c, flow);
	return 0;
}
