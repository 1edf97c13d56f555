/* SPDX-License-Identifier: GPL-2.0-or-later */
/* epoll.c - The one door into epoll
 *
 * What a flow's socket waits for is computed from the flow's own state, by one
 * function for each type. Handlers never name an event: so a flow can be moved
 * to another epoll instance without asking them.
 */

#include "table/epoll.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

#include "base/macros.h"

#define FD_MAX ((1 << 24) - 1) /* what fits into union epoll_ref */

const char *const epoll_type_names[] = {
	[EPOLL_NONE] = "NONE",
	[EPOLL_TAP] = "TAP",
	[EPOLL_ROOM] = "ROOM",
	[EPOLL_GATE] = "GATE",
	[EPOLL_TIMER] = "TIMER",
	[EPOLL_TCP_LISTEN] = "TCP_LISTEN",
	[EPOLL_UDP_LISTEN] = "UDP_LISTEN",
	[EPOLL_TCP] = "TCP",
	[EPOLL_TCP_SPLICE] = "TCP_SPLICE",
	[EPOLL_UDP] = "UDP",
	[EPOLL_PING] = "PING",
};
_Static_assert(ARRAY_SIZE(epoll_type_names) == EPOLL_NUM_TYPES,
	       "a name for each type");

/* Both directions, edge-triggered: mostly one epoll_ctl() in a connection's
 * life. EPOLLPRI: urgent data */
static uint32_t interest_tcp(const struct flow_common *f, unsigned sidei)
{
	(void)sidei;
	if (f->events & TCP_EV_CLOSED)
		return 0;
	return EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
}

/* Level-triggered, by side: waiting for output on one side also silences input
 * on the other, so that a full socket costs no wake-ups. Errors need no asking;
 * EPOLLERR only says "stay registered". */
static uint32_t interest_splice(const struct flow_common *f, unsigned sidei)
{
	uint32_t in_done = f->events & SPLICE_EV(SPLICE_EV_IN_DONE, sidei);
	uint32_t events = EPOLLERR;

	/* Only the target is connected by us; until it is, nobody is read */
	if (f->events & SPLICE_EV_CONNECTING)
		return sidei == TGTSIDE ? EPOLLOUT : 0;
	/* Nothing more to come, and EPOLLHUP for ever */
	if (f->events & SPLICE_EV(SPLICE_EV_OVER, sidei) ||
	    (in_done && f->events & SPLICE_EV(SPLICE_EV_OUT_DONE, sidei)))
		return 0;
	if (!in_done && !(f->events & SPLICE_EV(SPLICE_EV_BLOCKED, !sidei)))
		events |= EPOLLIN;
	if (f->events & SPLICE_EV(SPLICE_EV_BLOCKED, sidei))
		events |= EPOLLOUT;
	return events;
}

static uint32_t interest_datagram(const struct flow_common *f, unsigned sidei)
{
	(void)f;
	(void)sidei;
	return EPOLLIN;
}

/** struct interest - What sockets of a type wait for
 * @events:	Events for a side; 0: none, leave epoll
 * @once:	Never changes while there is some: nothing to do twice
 */
static const struct interest {
	uint32_t (*events)(const struct flow_common *f, unsigned sidei);
	bool once;
} interests[] = {
	[EPOLL_NONE] = { 0 },
	[EPOLL_TAP] = { 0 },
	[EPOLL_ROOM] = { 0 },
	[EPOLL_GATE] = { 0 },
	[EPOLL_TIMER] = { 0 },
	[EPOLL_TCP_LISTEN] = { 0 },
	[EPOLL_UDP_LISTEN] = { 0 },
	[EPOLL_TCP] = { interest_tcp, false }, /* again: edges are told anew */
	[EPOLL_TCP_SPLICE] = { interest_splice, false },
	[EPOLL_UDP] = { interest_datagram, true },
	[EPOLL_PING] = { interest_datagram, true },
};
_Static_assert(ARRAY_SIZE(interests) == EPOLL_NUM_TYPES,
	       "interest of each type");

int flow_epoll_set(const struct epoll_set *es, struct flow_table *ft,
		   enum epoll_type type, struct flow *flow, unsigned sidei,
		   uint64_t now)
{
	const struct interest *interest = &interests[type];
	struct flow_common *f = &flow->f;
	union epoll_ref ref = {
		.fd = (uint32_t)f->fd[sidei] & FD_MAX,
		.type = type,
		.sidx = flow_sidx(ft, flow, sidei),
	};
	struct epoll_event ev = { .data.u64 = ref.u64 };
	int op = f->in_epoll[sidei] ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	assert(interest->events && f->fd[sidei] >= 0);
	if (f->fd[sidei] > FD_MAX)
		return -EMFILE;

	ev.events = interest->events(f, sidei);
	if (!ev.events) {
		flow_epoll_del(es, flow, sidei);
		return 0;
	}
	if (f->in_epoll[sidei] && interest->once)
		return 0;
	if (op == EPOLL_CTL_ADD && !f->in_epoll[!sidei])
		f->epoll_id = epoll_sockets(es);
	if (epoll_ctl(es->fd[f->epoll_id], op, f->fd[sidei], &ev))
		return -errno;
	f->in_epoll[sidei] = true;
	flow_log(ft->log, now, EPOLL_SET, flow, f->fd[sidei], ev.events, sidei,
		 0);
	return 0;
}

void flow_epoll_del(const struct epoll_set *es, struct flow *flow,
		    unsigned sidei)
{
	struct flow_common *f = &flow->f;

	if (!f->in_epoll[sidei])
		return;
	/* Fails only for a socket that is closed, and so has left already */
	epoll_ctl(es->fd[f->epoll_id], EPOLL_CTL_DEL, f->fd[sidei], NULL);
	f->in_epoll[sidei] = false;
}

/* instance_of() - Where something that is no flow belongs */
static int instance_of(const struct epoll_set *es, enum epoll_type type)
{
	bool listens = type == EPOLL_TCP_LISTEN || type == EPOLL_UDP_LISTEN;

	return es->fd[listens ? epoll_sockets(es) : EPOLL_MAIN];
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
	return epoll_ctl(instance_of(es, type), op, fd, &ev) ? -errno : 0;
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
	epoll_ctl(instance_of(es, type), EPOLL_CTL_DEL, fd, NULL);
}
