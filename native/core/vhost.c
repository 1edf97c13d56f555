/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost.c - A virtual machine's rings in the datapath
 *
 * What link/ cannot do for a ring: its kick descriptor goes into epoll, where
 * that of the ring to the guest means room for frames and the other one frames,
 * and the gate before host sockets follows each change.
 */

#include "core/vhost.h"

#include <errno.h>
#include <sys/epoll.h>

#include "core/gate.h"

static enum epoll_type type_of(unsigned index)
{
	return index % 2 == VHOST_TO_GUEST ? EPOLL_ROOM : EPOLL_TAP;
}

static void unwatch(struct datapath *dp, unsigned index)
{
	struct ctx *c = &dp->ctx;
	const struct vhost_queue *q = &c->tap.vhost->queue[index];

	/* Its front-end has the descriptor too: closing it is not enough */
	if (q->started)
		epoll_del_fixed(&c->epoll, type_of(index), q->kick_fd);
}

void datapath_vhost_unwatch(struct datapath *dp)
{
	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		unwatch(dp, i);
}

/* check() - Is the tap of this kind, and has it such a queue? */
static int check(const struct datapath *dp, unsigned index)
{
	if (!dp->ctx.tap.vhost)
		return -EOPNOTSUPP;
	return index < VHOST_QUEUES ? 0 : -EINVAL;
}

int datapath_vhost_features(struct datapath *dp, uint64_t features)
{
	int err = check(dp, 0);

	return err ? err : vhost_set_features(&dp->ctx.tap, features);
}

int datapath_vhost_memory(struct datapath *dp,
			  const struct guest_region *regions, unsigned n)
{
	int err = check(dp, 0);

	if (!err)
		err = vhost_set_memory(&dp->ctx.tap, regions, n);
	if (!err)
		gate_sync(dp);
	return err;
}

int datapath_vhost_start(struct datapath *dp, unsigned index,
			 const struct virtq_addr *addr, uint16_t base,
			 int kick_fd, int call_fd)
{
	struct ctx *c = &dp->ctx;
	int err = check(dp, index);

	if (!err && c->tap.vhost->queue[index].started)
		err = -EBUSY;
	if (err)
		return err;
	err = epoll_add_fixed(&c->epoll, type_of(index), kick_fd, 0, EPOLLIN);
	if (err)
		return err;
	err = vhost_start(&c->tap, index, addr, base, kick_fd, call_fd);
	if (err)
		epoll_del_fixed(&c->epoll, type_of(index), kick_fd);
	return err;
}

int datapath_vhost_call(struct datapath *dp, unsigned index, int call_fd)
{
	int err = check(dp, index);

	return err ? err : vhost_set_call(&dp->ctx.tap, index, call_fd);
}

int datapath_vhost_enable(struct datapath *dp, unsigned index, bool enabled)
{
	int err = check(dp, index);

	if (!err && !dp->ctx.tap.vhost->queue[index].started)
		err = -ENOTCONN;
	if (err)
		return err;
	vhost_enable(&dp->ctx.tap, index, enabled);
	tap_room(&dp->ctx.tap);
	gate_sync(dp);
	return 0;
}

int datapath_vhost_stop(struct datapath *dp, unsigned index, uint16_t *ret_next)
{
	int err = check(dp, index);

	if (err)
		return err;
	unwatch(dp, index);
	*ret_next = vhost_stop(&dp->ctx.tap, index);
	gate_sync(dp);
	return 0;
}
