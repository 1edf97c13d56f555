/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp.c - Life of UDP flows over the tap: open, time out, close
 *
 * A flow is a 4-tuple. One that the guest began uses the port of the guest's
 * socket (udp_port.h), which it shares with the flows to other remotes. One that
 * somebody outside began has a connected socket of its own on the listener's
 * port, so that the kernel sorts datagrams and errors by peer; the flows that
 * the guest begins from a forwarded port have the same, for its port is that of
 * the listener. Where an inbound flow cannot have its own socket (a port below
 * 1024 after privileges are gone, no file descriptor left, more peers than may
 * have one), it lives on the listening socket: the same flow, slower, and without
 * ICMP errors. One that leaves through a proxy has the sockets that Python gave
 * it (udp_relay.h).
 */

#include "proto/udp.h"

#include <errno.h>

#include "proto/dgram.h"
#include "proto/handler.h"
#include "proto/icmp_error.h"
#include "proto/udp_cross.h"
#include "proto/udp_flow.h"
#include "proto/udp_from_sock.h"
#include "proto/udp_from_tap.h"
#include "proto/udp_listen.h"
#include "proto/udp_port.h"
#include "proto/udp_relay.h"
#include "proto/udp_sock.h"

/* Sockets that share a listener's port with it, when the guest began and when
 * somebody outside did. Each costs a descriptor, and the kernel looks at all of
 * them for each further one and for each datagram of somebody new, before Linux
 * 6.13 for any datagram: a flood from random sources would take all of a core.
 * Flows beyond use the listener itself */
#define UDP_SHARERS_MAX		64
#define UDP_SHARERS_OUTSIDE_MAX 256

/* own_listener() - Is the guest's port one that we listen on at an address? */
static struct listener *own_listener(const struct ctx *c, uint16_t port,
				     const union inany *addr)
{
	struct listener *l;

	for (l = listener_on_port(&c->listeners, IPPROTO_UDP, PIF_HOST, port);
	     l; l = listener_next(&c->listeners, l)) {
		/* A wildcard IPv6 socket may serve IPv4 as well */
		if (inany_is_any(&l->addr) || inany_equal(&l->addr, addr))
			return l;
	}
	return NULL;
}

/**
 * connect_guest() - Bind and connect a flow's own socket
 * @source:	Our address
 * @l:		Listener whose port it is to share, or NULL
 *
 * Return: 0 or -errno
 */
static int connect_guest(struct ctx *c, const struct flow *flow, int fd,
			 const union inany *source, const struct listener *l)
{
	const struct flowside *tgt = &flow->f.side[TGTSIDE];
	bool v4 = udp_is_v4(flow, TGTSIDE);
	int rc;

	rc = dgram_outbound(c, fd, v4);
	if (rc)
		return rc;
	if (l)
		rc = udp_bind_shared(c, fd, l, v4, source, l->port);
	else
		rc = dgram_bind(c, fd, v4, source, tgt->oport);
	return rc ? rc : dgram_connect(c, fd, &tgt->eaddr, tgt->eport);
}

/* open_own() - A socket that this flow alone has; 0, or -errno: -EADDRINUSE if
 * the tuple is taken or is its own peer */
static int open_own(struct ctx *c, struct flow *flow, const union inany *source,
		    const struct listener *l)
{
	struct flowside local = flow->f.side[TGTSIDE];
	int fd, rc;

	fd = dgram_socket(c, flow, IPPROTO_UDP, udp_is_v4(flow, TGTSIDE));
	if (fd < 0)
		return fd;
	rc = connect_guest(c, flow, fd, source, l);
	if (!rc)
		rc = dgram_name(fd, &local.oaddr, &local.oport);
	if (!rc && !udp_is_free(c, &local))
		rc = -EADDRINUSE;
	if (rc) {
		close(fd);
		return rc;
	}
	rc = udp_watch(c, flow, TGTSIDE, fd);
	if (rc)
		return rc;

	flow_set_our_addr(flow, TGTSIDE, &local.oaddr, local.oport);
	if (l)
		udp_drain(c, flow, TGTSIDE, fd, l);
	else
		udp_forget(fd);
	udp_setup(fd);
	return 0;
}

/* open_forwarded() - The guest began, from the port of a listener: its server
 * then speaks from that also to those whom it speaks to first */
static int open_forwarded(struct ctx *c, struct flow *flow,
			  const union inany *source, struct listener *l)
{
	struct udp_flow *u = udp_flow_of(flow);
	struct flowside local = flow->f.side[TGTSIDE];
	int rc;

	if (l->sharers < UDP_SHARERS_MAX) {
		rc = open_own(c, flow, source, l);
		if (rc)
			return rc;
		u->shares = l->serial;
		l->sharers++;
		return 0;
	}
	local.oaddr = *source;
	local.oport = l->port;
	if (!udp_is_free(c, &local))
		return -EADDRINUSE;
	u->listener = l->serial;
	idle_set_sharing(&c->ft, flow, true);
	flow_set_our_addr(flow, TGTSIDE, &local.oaddr, local.oport);
	return 0;
}

/* open_guest() - The guest began: a port towards the target */
static int open_guest(struct ctx *c, struct flow *flow, const struct verdict *v)
{
	union inany source = v->side.oaddr;
	struct flowside local;
	struct listener *l;
	int rc = 0;

	if (inany_is_any(&source))
		rc = udp_source(c, flow, &source);
	if (rc)
		return rc;
	if (v->side.oport)
		return open_own(c, flow, &source, NULL);

	l = own_listener(c, flow->f.side[INISIDE].eport, &source);
	if (l) {
		rc = open_forwarded(c, flow, &source, l);
	} else {
		rc = udp_port_take(c, flow, v, &source, &local);
		if (!rc)
			flow_set_our_addr(flow, TGTSIDE, &local.oaddr,
					  local.oport);
	}
	if (rc == -EADDRINUSE)
		rc = open_own(c, flow, &source, NULL);
	return rc;
}

/* open_host() - A datagram to a listening socket began */
static int open_host(struct ctx *c, struct flow *flow, struct miss *m)
{
	struct listener *l = udp_listener_asked(c, flow, m);
	int fd;

	if (!l)
		return -ENOTCONN;

	/* The kernel gives a datagram for a group to every socket that has its
	 * port: a second one would hear all of it twice */
	fd = inany_is_unicast(&flow->f.side[INISIDE].oaddr) &&
			     l->sharers < UDP_SHARERS_OUTSIDE_MAX &&
			     admit_is_calm(l, c->now) ?
		     udp_connect_ini(c, flow, l, -1) :
		     -EADDRINUSE;
	if (fd < 0) {
		udp_flow_of(flow)->listener = l->serial;
	} else {
		udp_flow_of(flow)->shares = l->serial;
		l->sharers++;
	}
	udp_catch_up(c, flow, l, m, fd);
	if (fd >= 0)
		udp_setup(fd);
	return 0;
}

static int udp_open(struct ctx *c, struct flow *flow, const struct verdict *v,
		    struct miss *m)
{
	int rc;

	udp_flow_init(flow);
	timer_set(&c->timers, flow, c->now + UDP_TIMEOUT_UNANSWERED);
	if (m->relay) {
		rc = udp_relay_open(c, flow, m);
	} else if (flow->f.pif[INISIDE] == PIF_TAP) {
		rc = open_guest(c, flow, v);
	} else {
		udp_cross_open(c, flow, m, v->crosses);
		rc = open_host(c, flow, m);
	}
	return rc;
}

/* timeout() - How long may a flow be idle? */
static uint64_t timeout(const struct flow *flow)
{
	const uint64_t *packets = flow->f.packets;

	/* A stream, as conntrack sees it: both have spoken, one more than once
	 * (a question and its answer are none) */
	if (packets[INISIDE] && packets[TGTSIDE] &&
	    packets[INISIDE] + packets[TGTSIDE] > 2)
		return UDP_TIMEOUT_STREAM;
	/* A late answer of the guest still leaves from the right port */
	if (flow->f.type == FLOW_UDP && flow->f.pif[INISIDE] == PIF_HOST &&
	    !packets[TGTSIDE])
		return UDP_TIMEOUT_UNANSWERED;
	return UDP_TIMEOUT;
}

void udp_timer(struct ctx *c, struct flow *flow)
{
	uint64_t deadline =
		MAX(flow->f.created, flow->f.last_use) + timeout(flow);

	if (udp_cross_timer(c, flow))
		return;
	if (c->now >= deadline)
		flow_mark_closed(&c->ft, flow, WHY_IDLE, 0, c->now);
	else
		timer_set(&c->timers, flow, deadline);
}

/* share_end() - A socket that shared a listener's port ends */
static void share_end(struct ctx *c, struct flow *flow)
{
	struct listener *l = udp_listener_of(c, flow, !udp_tapside(flow),
					     udp_flow_of(flow)->shares);

	if (!l)
		return;
	assert(l->sharers);
	l->sharers--;
}

bool udp_defer(struct ctx *c, struct flow *flow)
{
	share_end(c, flow);
	udp_relay_close(c, flow);
	udp_port_drop(c, flow);
	udp_close(c, flow);
	return true;
}

const struct handler udp_handler = {
	.ipproto = IPPROTO_UDP,
	.lossy = true,
	.init = udp_ports_init,
	.fini = udp_ports_fini,
	.open = udp_open,
	.reject = icmp_error_reject,
	.interest = dgram_interest,
	.from_tap = udp_from_tap,
	.from_sock = udp_from_sock,
	.from_port = udp_from_port,
	.refused = udp_refused,
	.timer = udp_timer,
	.listen = udp_listen,
	.ruled = udp_port_ruled,
	.defer = udp_defer,
};
