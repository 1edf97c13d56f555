/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp.c - Life of UDP flows: open, errors, time-outs, close
 *
 * A flow is a 4-tuple, and has one connected host socket: on the target side
 * if the guest began, on the initiating side if somebody outside did. The
 * kernel sorts datagrams and errors by peer then, and nothing has to be looked
 * up. Where an inbound flow cannot have its own socket (a port below 1024
 * after privileges are gone, no file descriptor left), it lives on the
 * listening socket: the same flow, slower, and without ICMP errors.
 */

#include <errno.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "proto/dgram.h"
#include "proto/icmp_error.h"
#include "proto/udp_flow.h"

/* What Linux' conntrack has as defaults, so that a guest behind us sees what it
 * would see behind a router (nf_conntrack_udp_timeout, _timeout_stream) */
#define UDP_TIMEOUT	   (30 * NSEC_PER_SEC)
#define UDP_TIMEOUT_STREAM (120 * NSEC_PER_SEC)
/* Asked of the kernel, which gives what net.core.[rw]mem_max allows: room for
 * some milliseconds of 10 Gbit/s while we serve other flows */
#define UDP_SOCK_BUF (4 << 20)
/* Errors taken from a queue in one event, so that none can starve the rest */
#define UDP_ERRORS_MAX 16

void udp_setup(int fd)
{
	static const int on = 1, size = UDP_SOCK_BUF;

	setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int udp_watch(struct ctx *c, struct flow *flow, unsigned sidei, int fd)
{
	int rc = flow_adopt(&c->epoll, &c->ft, flow, sidei, fd, c->now);

	if (rc)
		close(fd);
	return rc;
}

/* own_listener() - Is a socket of our own what keeps a port busy? */
static const struct listener *own_listener(const struct ctx *c, uint16_t port,
					   bool v4)
{
	const struct listener *l;

	for (l = listener_on_port(&c->listeners, IPPROTO_UDP, PIF_HOST, port);
	     l; l = listener_next(&c->listeners, l)) {
		/* A wildcard IPv6 socket may serve IPv4 as well */
		if (inany_is_v4(&l->addr) == v4 || inany_is_any(&l->addr))
			return l;
	}
	return NULL;
}

int udp_bind_shared(const struct ctx *c, int fd, const struct listener *l,
		    bool v4, const union inany *addr, uint16_t port)
{
	static const int on = 1, off;
	int rc;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	rc = dgram_bind(c, fd, v4, addr, port);
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
	return rc;
}

/**
 * udp_bind_guest() - Bind an outbound socket, to the guest's port if we can
 * @fd:		Socket
 * @flow:	Flow, target known
 * @own:	Try the guest's own port
 *
 * A port that only our own listener has is shared with it: the guest's server
 * then answers from its port also those it speaks to first.
 *
 * Return: 0 or -errno
 */
static int udp_bind_guest(const struct ctx *c, int fd, const struct flow *flow,
			  bool own)
{
	const struct flowside *tgt = &flow->f.side[TGTSIDE];
	uint16_t port = flow->f.side[INISIDE].eport;
	const struct listener *l;
	bool v4 = udp_is_v4(flow, TGTSIDE);
	int rc;

	if (tgt->oport)
		return dgram_bind(c, fd, v4, &tgt->oaddr, tgt->oport);

	if (own) {
		rc = dgram_bind(c, fd, v4, &tgt->oaddr, port);
		if (rc != -EADDRINUSE && rc != -EACCES)
			return rc;
		l = rc == -EADDRINUSE ? own_listener(c, port, v4) : NULL;
		if (l && !udp_bind_shared(c, fd, l, v4, &tgt->oaddr, port))
			return 0;
	}
	/* connect() chooses a port, and an address if none is given */
	if (inany_is_any(&tgt->oaddr))
		return 0;
	return dgram_bind(c, fd, v4, &tgt->oaddr, 0);
}

/**
 * udp_connect_guest() - Make the connected socket of a flow from the guest
 * @flow:	Flow, target known
 * @own:	Try the guest's own port
 * @local:	Filled with the host's endpoint as eaddr, our address as oaddr
 *
 * Return: the socket; -EADDRINUSE if the tuple is taken or is its own peer,
 *	   else -errno
 */
static int udp_connect_guest(struct ctx *c, const struct flow *flow, bool own,
			     struct flowside *local)
{
	bool v4 = udp_is_v4(flow, TGTSIDE);
	int fd, rc;

	fd = dgram_socket(c, flow, IPPROTO_UDP, v4);
	if (fd < 0)
		return fd;

	*local = flow->f.side[TGTSIDE];
	rc = dgram_outbound(c, fd, v4);
	if (!rc)
		rc = udp_bind_guest(c, fd, flow, own);
	if (!rc)
		rc = dgram_connect(c, fd, &local->eaddr, local->eport);
	if (!rc)
		rc = dgram_name(fd, &local->oaddr, &local->oport);
	if (rc)
		goto fail;

	/* The guest's port, where the target is this very host and nobody is
	 * there: the socket would hear itself */
	rc = -EADDRINUSE;
	if (local->oport == local->eport &&
	    inany_equal(&local->oaddr, &local->eaddr))
		goto fail;
	/* A shared port, and an inbound flow of the same peer on it */
	if (!flow_sidx_is_none(
		    flow_lookup(&c->ft, IPPROTO_UDP, PIF_HOST, local)))
		goto fail;
	return fd;

fail:
	close(fd);
	return rc;
}

/* udp_open_guest() - The guest began: a socket towards the target */
static int udp_open_guest(struct ctx *c, struct flow *flow)
{
	struct flowside local;
	int fd, rc;

	fd = udp_connect_guest(c, flow, true, &local);
	if (fd == -EADDRINUSE && !flow->f.side[TGTSIDE].oport)
		fd = udp_connect_guest(c, flow, false, &local);
	if (fd < 0)
		return fd;

	udp_drain(c, flow, fd, UDP_LISTENER_NONE);
	udp_setup(fd);
	rc = udp_watch(c, flow, TGTSIDE, fd);
	if (rc)
		return rc;

	flow_set_our_addr(flow, TGTSIDE, &local.oaddr, local.oport);
	return 0;
}

int udp_connect_ini(struct ctx *c, struct flow *flow, const struct listener *l,
		    int fd)
{
	const struct flowside *ini = &flow->f.side[INISIDE];
	bool v4 = udp_is_v4(flow, INISIDE);
	int rc;

	if (fd < 0)
		fd = dgram_socket(c, flow, IPPROTO_UDP, v4);
	if (fd < 0)
		return fd;

	rc = udp_bind_shared(c, fd, l, v4, &ini->oaddr, ini->oport);
	if (!rc)
		rc = dgram_connect(c, fd, &ini->eaddr, ini->eport);
	if (rc) {
		close(fd);
		return rc;
	}
	rc = udp_watch(c, flow, INISIDE, fd);
	return rc ? rc : fd;
}

/* udp_replay() - Datagrams that waited for the verdict go to the guest */
static void udp_replay(struct ctx *c, struct flow *flow, struct miss *m)
{
	TAP_BATCH_SCOPE(batch, &c->tap);
	struct stage_item *item;
	uint32_t pos = 0;

	while ((item = stage_next(&c->stage, m, &pos))) {
		struct iovec iov = { stage_item_data(item), item->len };
		struct udp_run run = { .iov = &iov, .n = 1 };

		udp_run_add(&run, item->len, item->len);
		udp_to_tap(c, flow, &run, &batch);
	}
}

/* udp_open_host() - A datagram to a listening socket began */
static int udp_open_host(struct ctx *c, struct flow *flow, struct miss *m)
{
	struct listener *l =
		m->listener < 0 ?
			NULL :
			listener_get(&c->listeners, (uint32_t)m->listener);
	int fd;

	if (!l)
		return -ENOTCONN;

	/* The kernel gives a datagram for a group to every socket that has its
	 * port: a second one would hear all of it twice */
	fd = inany_is_unicast(&flow->f.side[INISIDE].oaddr) ?
		     udp_connect_ini(c, flow, l, -1) :
		     -EADDRINUSE;
	if (fd < 0)
		udp_flow_of(flow)->listener = m->listener;
	udp_replay(c, flow, m);
	if (fd >= 0) {
		udp_drain(c, flow, fd, m->listener);
		udp_setup(fd);
	}
	return 0;
}

void udp_flow_init(struct flow *flow)
{
	*udp_flow_of(flow) = (struct udp_flow){
		.listener = UDP_LISTENER_NONE,
		.gso_limit = UINT16_MAX,
		.batch = { 2, 2 },
	};
}

static int udp_open(struct ctx *c, struct flow *flow, const struct verdict *v,
		    struct miss *m)
{
	int rc;

	udp_flow_init(flow);
	(void)v;
	if (flow->f.pif[INISIDE] == PIF_TAP)
		rc = udp_open_guest(c, flow);
	else if (udp_is_v4(flow, INISIDE) == udp_is_v4(flow, TGTSIDE))
		rc = udp_open_host(c, flow, m);
	else
		rc = -EAFNOSUPPORT;
	if (rc)
		return rc;

	timer_set(&c->timers, flow, c->now + UDP_TIMEOUT);
	return 0;
}

/* udp_relay_error() - One error, with the UDP header the guest had sent */
static void udp_relay_error(struct ctx *c, struct flow *flow,
			    const struct sock_error *e, uint8_t *l4)
{
	const struct flowside *guest = &flow->f.side[udp_tapside(flow)];
	/* The sum of the guest's datagram is not known any more */
	struct udp_hdr uh = {
		.source = htons(guest->eport),
		.dest = htons(guest->oport),
		.len = htons((uint16_t)(UDP_HLEN + e->len)),
	};

	count(&c->cnt, CNT_UDP_ERRORS);
	flow_log(&c->log, c->now, SOCK_ERROR, flow, e->err, 0, 0, 0);
	if (flow->f.pif[udp_tapside(flow)] != PIF_TAP)
		return;
	memcpy(l4, &uh, UDP_HLEN);
	icmp_error_relay(c, flow, e, l4, UDP_HLEN + e->len);
}

void udp_errors(struct ctx *c, struct flow *flow, unsigned sidei)
{
	int fd = flow->f.fd[sidei];
	uint8_t l4[ICMP_QUOTE_MAX];
	struct sock_error e;
	unsigned n;
	int err;

	for (n = 0; n < UDP_ERRORS_MAX; n++) {
		if (icmp_error_next(fd, l4 + UDP_HLEN, sizeof(l4) - UDP_HLEN,
				    &e))
			break;
		udp_relay_error(c, flow, &e, l4);
	}
	if (n)
		return;
	/* An error that found no room in the queue would wake us for ever; one
	 * of a socket of the namespace has no queue */
	err = dgram_take_error(fd);
	if (err) {
		count(&c->cnt, CNT_UDP_ERRORS);
		flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
	}
}

void udp_timer(struct ctx *c, struct flow *flow)
{
	const uint64_t *packets = flow->f.packets;
	uint64_t deadline = MAX(flow->f.created, flow->f.last_use);

	/* A stream, as conntrack sees it: both have spoken, one more than once
	 * (a question and its answer are none) */
	if (packets[INISIDE] && packets[TGTSIDE] &&
	    packets[INISIDE] + packets[TGTSIDE] > 2)
		deadline += UDP_TIMEOUT_STREAM;
	else
		deadline += UDP_TIMEOUT;

	if (c->now >= deadline)
		flow_mark_closed(&c->ft, flow, WHY_IDLE, 0, c->now);
	else
		timer_set(&c->timers, flow, deadline);
}

bool udp_defer(struct ctx *c, struct flow *flow)
{
	(void)c;
	/* No other descriptor refers to the socket: closing it is also what
	 * takes it out of epoll */
	for (unsigned sidei = 0; sidei < SIDES; sidei++) {
		int fd = flow_take_fd(flow, sidei);

		if (fd >= 0)
			close(fd);
	}
	return true;
}

const struct handler udp_handler = {
	.name = "UDP",
	.ipproto = IPPROTO_UDP,
	.open = udp_open,
	.reject = icmp_error_reject,
	.interest = dgram_interest,
	.from_tap = udp_from_tap,
	.from_sock = udp_from_sock,
	.timer = udp_timer,
	.listen = udp_listen,
	.defer = udp_defer,
};
