/* SPDX-License-Identifier: GPL-2.0-or-later */
/* verbs.c - What may be done to an open flow from outside: end it, put it under
 * another rule, or give it another socket */

#include <errno.h>

#include "core/datapath.h"
#include "core/handlers.h"
#include "core/turn.h"
#include "table/meter.h"

/* flow_now() - The open flow that a verb is for, and the time of the verb; NULL: it
 * is gone */
static struct flow *flow_now(struct ctx *c, uint64_t id)
{
	struct flow *flow = flow_by_id(&c->ft, id);

	if (flow && !time_is_virtual(c))
		c->now = clock_now();
	return flow;
}

int datapath_close_flow(struct datapath *dp, uint64_t id, enum flow_why why)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_now(c, id);

	if (!flow)
		return -ESTALE;
	handlers_close(c, flow, why);
	return 0;
}

int datapath_adopt(struct datapath *dp, uint64_t id, int fd, bool forget)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_now(c, id);

	if (!flow)
		return -ESTALE;
	if (!handlers[flow->f.type]->adopt)
		return -EPROTONOSUPPORT;
	return handlers[flow->f.type]->adopt(c, flow, fd, forget);
}

int datapath_connect(struct datapath *dp, uint64_t id, const union inany *eaddr,
		     uint16_t eport)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_now(c, id);

	if (!flow)
		return -ESTALE;
	if (!handlers[flow->f.type]->connect)
		return -EPROTONOSUPPORT;
	return handlers[flow->f.type]->connect(c, flow, eaddr, eport);
}

bool datapath_said(struct datapath *dp, struct said *ret_said)
{
	struct ctx *c = &dp->ctx;
	int place = inspected_next(&c->inspected);
	struct flow *flow;

	if (place < 0)
		return false;
	*ret_said = (struct said){ .flow_id = c->inspected.flow_id[place] };
	flow = flow_by_id(&c->ft, ret_said->flow_id);
	ret_said->gone = !flow;
	if (flow)
		ret_said->data =
			handlers[flow->f.type]->said(c, flow, &ret_said->ended);
	else
		inspected_remove(&c->inspected, (unsigned)place);
	return true;
}

int datapath_set_rule(struct datapath *dp, uint64_t id, uint32_t rule,
		      uint32_t generation, bool admit)
{
	struct ctx *c = &dp->ctx;
	struct flow *flow = flow_now(c, id);
	int rc;

	if (!flow)
		return -ESTALE;
	rc = admit ? meters_admit_open(&c->ft, flow, rule, c->now) : 0;
	if (rc)
		return rc;
	if (handlers[flow->f.type]->unruled)
		handlers[flow->f.type]->unruled(c, flow);
	flow_set_rule(&c->ft, flow, rule, generation);
	if (handlers[flow->f.type]->ruled)
		handlers[flow->f.type]->ruled(c, flow);
	return 0;
}
