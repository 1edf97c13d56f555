/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gate.c - Whether host sockets are heard */

#include "core/gate.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/sys.h"

int gate_init(struct datapath *dp)
{
	struct epoll_set *es = &dp->ctx.epoll;

	es->fd[EPOLL_GATED] = sys_epoll_create1(EPOLL_CLOEXEC);
	if (es->fd[EPOLL_GATED] < 0)
		return -errno;
	dp->gate_shut = true;
	return epoll_add_fixed(es, EPOLL_GATE, es->fd[EPOLL_GATED], 0, 0);
}

void gate_sync(struct datapath *dp)
{
	struct epoll_set *es = &dp->ctx.epoll;
	struct tap *t = &dp->ctx.tap;

	if (t->blocked == dp->gate_shut)
		return;
	dp->gate_shut = t->blocked;
	epoll_mod_fixed(es, EPOLL_GATE, es->fd[EPOLL_GATED], 0,
			t->blocked ? 0 : EPOLLIN);
	tap_watch(t);
}
