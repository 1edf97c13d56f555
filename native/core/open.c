/* SPDX-License-Identifier: GPL-2.0-or-later */
/* open.c - Carrying out a verdict: from a miss to an active flow */

#include <errno.h>
#include <unistd.h>

#include "base/sock.h"
#include "core/datapath.h"
#include "core/dispatch.h"
#include "core/handlers.h"
#include "core/turn.h"
#include "table/meter.h"

#define PORT_TRIES 64 /* ports of our own choice, until one is free */

/* splice_check() - The same for a splice: between host and namespace only */
static int splice_check(const struct miss *m, const struct verdict *v)
{
	const struct flowside *side = &v->side;

	if (!(m->pif == PIF_HOST && v->pif == PIF_SPLICE) &&
	    !(m->pif == PIF_SPLICE && v->pif == PIF_HOST))
		return -EINVAL;
	if (v->pif == PIF_SPLICE && m->given_fd < 0)
		return -EBADF;
	if (inany_is_any(&side->eaddr) || !side->eport)
		return -EDESTADDRREQ;
	if (!inany_is_any(&side->oaddr) &&
	    inany_is_v4(&side->oaddr) != inany_is_v4(&side->eaddr))
		return -EAFNOSUPPORT;
	return 0;
}

/* is_same_client() - Did the client of a miss begin this flow, from the port that
 * it uses again? */
static bool is_same_client(const struct miss *m, const struct flow *flow)
{
	const struct flowside *old = &flow->f.side[INISIDE];

	return m->fd >= 0 && flow->f.pif[INISIDE] == m->pif &&
	       old->eport == m->key.eport && old->oport == m->key.oport &&
	       inany_equal(&old->eaddr, &m->key.eaddr) &&
	       inany_equal(&old->oaddr, &m->key.oaddr);
}

/* other_port() - A client that came by a UNIX socket has a port of our choice:
 * choose one that the guest's other flows have not */
static bool other_port(struct ctx *c, const struct miss *m,
		       struct flowside *side)
{
	if (m->fd < 0 || !sock_is_unix(m->fd))
		return false;
	for (unsigned i = 0; i < PORT_TRIES; i++) {
		side->oport = listeners_next_client(&c->listeners);
		if (flow_sidx_is_none(
			    flow_lookup(&c->ft, m->ipproto, PIF_TAP, side)))
			return true;
	}
	return false;
}

/**
 * side_free() - Make sure that no flow has these addresses at the guest
 *
 * Return: 0; -EADDRINUSE; -EINPROGRESS: the miss waits for the end of a flow. The
 *	   kernel has let its client connect again, so that one is over for the
 *	   client, but the guest has not all of its bytes
 */
static int side_free(struct ctx *c, struct miss *m, struct flowside *side)
{
	flow_sidx_t sidx = flow_lookup(&c->ft, m->ipproto, PIF_TAP, side);
	struct flow *flow;

	if (flow_sidx_is_none(sidx))
		return 0;
	if (other_port(c, m, side))
		return 0;
	flow = flow_at(&c->ft, sidx);
	if (handlers[flow->f.type]->yield &&
	    handlers[flow->f.type]->yield(c, flow))
		return 0;
	if (is_same_client(m, flow) &&
	    stage_wait(&c->stage, m, flow_id(&c->ft, flow), c->now))
		return -EINPROGRESS;
	return -EADDRINUSE;
}

/* may_be_told() - Is there a connection that was accepted, and a server that can
 * be told who its client is? */
static bool may_be_told(const struct miss *m)
{
	return m->ipproto == IPPROTO_TCP && m->fd >= 0;
}

/* verdict_check() - Can this flow go where the verdict says, or next to it? */
static int verdict_check(struct ctx *c, struct miss *m, struct verdict *v)
{
	struct flowside *side = &v->side;

	if (v->proxy && !may_be_told(m))
		return -EINVAL;
	if (m->relay && (v->action != VERDICT_FORWARD || m->given_fd < 0))
		return -EINVAL;
	if (v->action == VERDICT_SPLICE)
		return splice_check(m, v);
	if (v->action == VERDICT_INSPECT &&
	    (m->pif != PIF_TAP || m->ipproto != IPPROTO_TCP ||
	     m->given_fd >= 0))
		return -EINVAL;
	if (m->given_fd >= 0 &&
	    (m->pif != PIF_TAP ||
	     m->ipproto != (m->relay ? IPPROTO_UDP : IPPROTO_TCP)))
		return -EINVAL;
	if (m->pif == PIF_SPLICE)
		return -EPROTONOSUPPORT;
	if (v->pif != (m->pif == PIF_TAP ? PIF_HOST : PIF_TAP))
		return -EINVAL;
	if (inany_is_any(&side->eaddr))
		return -EDESTADDRREQ;
	if (v->pif == PIF_HOST)
		return 0;

	/* The guest is told both ends, and they must be free */
	if (inany_is_any(&side->oaddr) ||
	    inany_is_v4(&side->oaddr) != inany_is_v4(&side->eaddr))
		return -EAFNOSUPPORT;
	return side_free(c, m, side);
}

/* flow_refuse() - Tell the initiator that its flow could not be opened */
static void flow_refuse(struct ctx *c, const struct handler *h, struct miss *m,
			int err)
{
	if (h->reject)
		h->reject(c, m, err);
}

/* flow_open() - Walk a flow from FREE to ACTIVE */
static int flow_open(struct ctx *c, enum flow_type type, struct miss *m,
		     const struct verdict *verdict, struct flow **ret_flow)
{
	const struct handler *h = handlers[type];
	struct verdict v = *verdict;
	struct flow *flow;
	int err;

	err = verdict_check(c, m, &v);
	if (err == -EINPROGRESS)
		return err;
	if (err) {
		count(&c->cnt, CNT_DROP_OPEN_FAILED);
		goto refuse;
	}
	flow = flow_alloc(&c->ft, c->now);
	if (!flow) {
		err = -ENFILE;
		goto refuse;
	}
	flow_initiate(&c->ft, flow, m->pif, &m->key, c->now);
	flow_set_listener(flow, m->listener);
	flow_target(&c->ft, flow, &v, c->now);
	flow_set_type(&c->ft, flow, type, c->now);
	err = h->open(c, flow, &v, m);
	if (err) {
		flow_log(&c->log, c->now, FLOW_OPEN_FAILED, flow, -err, 0, 0,
			 0);
		flow_alloc_cancel(&c->ft, flow, c->now);
		count(&c->cnt, CNT_DROP_OPEN_FAILED);
		if (err == -ECONNREFUSED && m->fd >= 0 && !m->again) {
			m->again = true;
			return err;
		}
		goto refuse;
	}
	m->given_fd = -1; /* the handler has it */
	m->relay = NULL;
	flow_activate(&c->ft, flow, c->now);
	*ret_flow = flow;
	return 0;

refuse:
	flow_refuse(c, h, m, -err);
	return err;
}

/* miss_answer() - What the verdict says, short of releasing the miss */
static int miss_answer(struct ctx *c, struct miss *m, const struct verdict *v,
		       uint64_t *ret_flow_id)
{
	/* The guest must be refused by who speaks to guests */
	bool splice = v->action == VERDICT_SPLICE && m->pif != PIF_TAP;
	enum flow_type type = handlers_type(m->ipproto, splice);
	struct flow *flow = NULL;
	int err;

	if (type == FLOW_TYPE_NONE)
		return -EPROTONOSUPPORT;
	switch (v->action) {
	case VERDICT_DROP:
		count(&c->cnt, CNT_DROP_VERDICT);
		return 0;
	case VERDICT_REJECT:
		count(&c->cnt, CNT_REJECT_VERDICT);
		flow_refuse(c, handlers[type], m, ECONNREFUSED);
		return 0;
	default:
		/* Asked once about a connection that has another chance */
		if (!m->again && !meters_admit(&c->ft, v->rule, c->now)) {
			flow_refuse(c, handlers[type], m, ECONNREFUSED);
			return 0;
		}
		err = flow_open(c, type, m, v, &flow);
		if (err)
			return err;
	}
	*ret_flow_id = flow_id(&c->ft, flow);
	if (m->pif == PIF_TAP)
		dispatch_replay(c, flow, m);
	return 0;
}

int datapath_open(struct datapath *dp, uint64_t miss_id,
		  const struct verdict *v, int fd, const struct relay *relay,
		  uint64_t *ret_flow_id)
{
	struct ctx *c = &dp->ctx;
	struct miss *m = stage_get(&c->stage, miss_id);
	bool again;
	int err;

	/* The verdict may have taken its time */
	if (!time_is_virtual(c))
		c->now = clock_now();

	if (!m || m->behind) {
		count(&c->cnt, CNT_MISS_LATE);
		return -ESTALE;
	}
	m->given_fd = fd;
	m->relay = relay;
	*ret_flow_id = 0;
	again = m->again;
	err = miss_answer(c, m, v, ret_flow_id);
	if (err == -EINPROGRESS)
		return 0;
	if (err)
		m->given_fd = -1; /* stays the caller's */
	else if (m->relay)
		close(relay->control); /* no flow has it */
	m->relay = NULL;
	if (m->again == again)
		stage_release(&c->stage, m);
	return err;
}
