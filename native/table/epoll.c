/* SPDX-License-Identifier: GPL-2.0-or-later */
/* epoll.c - The one door into epoll
 *
 * What a flow's socket waits for is computed from the flow's own state, by a
 * function of its handler, whenever it is wanted: so a flow can be moved to
 * another epoll instance without asking anybody.
 */

#include "table/epoll.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

#include "base/macros.h"
#include "base/sys.h"

#define FD_MAX ((1 << 24) - 1) /* what fits into union epoll_ref */

const char *const epoll_type_names[] = {
	[EPOLL_NONE] = "NONE",	 [EPOLL_TAP] = "TAP",
	[EPOLL_ROOM] = "ROOM",	 [EPOLL_GATE] = "GATE",
	[EPOLL_TIMER] = "TIMER", [EPOLL_LISTEN] = "LISTEN",
	[EPOLL_FLOW] = "FLOW",	 [EPOLL_SHARED] = "SHARED",
};
_Static_assert(ARRAY_SIZE(epoll_type_names) == EPOLL_NUM_TYPES,
	       "a name for each type");

int flow_epoll_set(const struct epoll_set *es, struct flow_table *ft,
		   struct flow *flow, unsigned sidei, uint64_t now)
{
	uint32_t events = es->interest[flow->f.type](flow, sidei);
	uint32_t *interest = flow->rw.interest;
	int op = interest[sidei] ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	int fd = flow->f.fd[sidei];
	union epoll_ref ref = {
		.fd = (uint32_t)fd & FD_MAX,
		.type = EPOLL_FLOW,
		.sidx = flow_sidx(ft, flow, sidei),
	};
	struct epoll_event ev = { .events = events, .data.u64 = ref.u64 };

	assert(fd >= 0);
	if (fd > FD_MAX)
		return -EMFILE;
	if (!events) {
		flow_epoll_del(es, flow, sidei);
		return 0;
	}
	if (events == interest[sidei] && !(events & EPOLLET))
		return 0;
	if (op == EPOLL_CTL_ADD && !interest[!sidei])
		flow->rw.epoll_id = epoll_sockets(es);
	if (sys_epoll_ctl(es->fd[flow->f.epoll_id], op, fd, &ev))
		return -errno;
	interest[sidei] = events;
	flow_log(ft->log, now, EPOLL_SET, flow, fd, events, sidei, 0);
	return 0;
}

int flow_adopt(const struct epoll_set *es, struct flow_table *ft,
	       struct flow *flow, unsigned sidei, int fd, uint64_t now)
{
	int rc;

	flow_set_fd(ft, flow, sidei, fd);
	rc = flow_epoll_set(es, ft, flow, sidei, now);
	if (rc)
		(void)flow_take_fd(ft, flow, sidei);
	return rc;
}

int flow_exchange(const struct epoll_set *es, struct flow_table *ft,
		  struct flow *flow, unsigned sidei, int fd, int *ret_old,
		  uint64_t now)
{
	uint32_t was = flow->f.interest[sidei];
	uint8_t epoll_id = flow->f.epoll_id;
	int old = flow_take_fd(ft, flow, sidei);
	int rc = flow_adopt(es, ft, flow, sidei, fd, now);

	if (rc) {
		flow_set_fd(ft, flow, sidei, old);
		flow->rw.interest[sidei] = was;
		flow->rw.epoll_id = epoll_id;
		return rc;
	}
	if (was)
		sys_epoll_ctl(es->fd[epoll_id], EPOLL_CTL_DEL, old, NULL);
	*ret_old = old;
	return 0;
}

void flow_epoll_del(const struct epoll_set *es, struct flow *flow,
		    unsigned sidei)
{
	if (!flow->f.interest[sidei])
		return;
	/* Fails only for a socket that is closed, and so has left already */
	sys_epoll_ctl(es->fd[flow->f.epoll_id], EPOLL_CTL_DEL,
		      flow->f.fd[sidei], NULL);
	flow->rw.interest[sidei] = 0;
}

/* instance_of() - Where something that is no flow belongs */
static int instance_of(const struct epoll_set *es, enum epoll_type type)
{
	bool feeds_guest = type == EPOLL_LISTEN || type == EPOLL_SHARED;

	return es->fd[feeds_guest ? epoll_sockets(es) : EPOLL_MAIN];
}

static int fixed_ctl(const struct epoll_set *es, int op, enum epoll_type type,
		     int fd, uint32_t data, uint32_t events)
{
	union epoll_ref ref = {
		.fd = (uint32_t)fd & FD_MAX,
		.type = type,
		.data = data,
	};
	struct epoll_event ev = { .events = events, .data.u64 = ref.u64 };

	if (fd > FD_MAX)
		return -EMFILE;
	return sys_epoll_ctl(instance_of(es, type), op, fd, &ev) ? -errno : 0;
}

/**
 * epoll_add_fixed() - Register what is no flow: tap, timer, listening socket
 * @data:	Listener number, or whatever the type wants
 * @events:	EPOLL*
 *
 * Return: 0, or -errno
 */
int epoll_add_fixed(const struct epoll_set *es, enum epoll_type type, int fd,
		    uint32_t data, uint32_t events)
{
	return fixed_ctl(es, EPOLL_CTL_ADD, type, fd, data, events);
}

void epoll_mod_fixed(const struct epoll_set *es, enum epoll_type type, int fd,
		     uint32_t data, uint32_t events)
{
	/* Fails only for what is not there */
	(void)fixed_ctl(es, EPOLL_CTL_MOD, type, fd, data, events);
}

void epoll_del_fixed(const struct epoll_set *es, enum epoll_type type, int fd)
{
	sys_epoll_ctl(instance_of(es, type), EPOLL_CTL_DEL, fd, NULL);
}
