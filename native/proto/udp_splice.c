/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_splice.c - Datagrams from socket to socket, past the tap
 *
 * Each side has a connected socket: the initiator's shares its port with the
 * listener, the target's is bound to a port of its own. Everything else is that
 * of UDP over the tap (udp_pass.c, udp_from_sock.c, udp_listen.c), time-outs
 * too.
 *
 * An initiator inside the namespace needs a socket made there; without one the
 * flow lives on the listener. Errors (the target's port is closed) are counted
 * and logged, and another place is asked for; the client is not told: only a
 * kernel or root may send ICMP, and a kernel does when nobody has the port, but
 * there is the listener.
 */

#include <errno.h>

#include "proto/dgram.h"
#include "proto/handler.h"
#include "proto/udp.h"
#include "proto/udp_cross.h"
#include "proto/udp_flow.h"
#include "proto/udp_from_sock.h"
#include "proto/udp_listen.h"
#include "proto/udp_sock.h"

/* given_fd_of() - The namespace's socket, if this side is the one for it */
static int given_fd_of(const struct flow *flow, unsigned sidei,
		       const struct miss *m)
{
	return flow->f.pif[sidei] == PIF_SPLICE ? m->given_fd : -1;
}

/* connect_target() - Bind as the verdict says, and connect
 * @local:	Filled with the address and port that we have */
static int connect_target(struct ctx *c, struct flow *flow, int fd,
			  struct flowside *local)
{
	const struct flowside *tgt = &flow->f.side[TGTSIDE];
	bool v4 = inany_is_v4(&tgt->eaddr);
	int rc = 0;

	*local = *tgt;
	if (tgt->oport || !inany_is_any(&tgt->oaddr))
		rc = dgram_bind(c, fd, v4, &tgt->oaddr, tgt->oport);
	if (!rc)
		rc = dgram_connect(c, fd, &tgt->eaddr, tgt->eport);
	if (!rc)
		rc = dgram_name(fd, &local->oaddr, &local->oport);
	/* The kernel may choose the very port, if nobody is there */
	if (!rc && local->oport == local->eport &&
	    inany_equal(&local->oaddr, &local->eaddr))
		rc = -EADDRINUSE;
	return rc;
}

static int open_target(struct ctx *c, struct flow *flow, struct miss *m)
{
	bool v4 = udp_is_v4(flow, TGTSIDE);
	struct flowside local;
	int fd, rc;

	fd = given_fd_of(flow, TGTSIDE, m);
	if (fd < 0)
		fd = dgram_socket(c, flow, IPPROTO_UDP, v4);
	if (fd < 0)
		return fd;
	rc = connect_target(c, flow, fd, &local);
	if (!rc) {
		udp_forget(fd);
		udp_setup(fd);
		rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, fd, c->now);
	}
	if (!rc)
		flow_set_our_addr(flow, TGTSIDE, &local.oaddr, local.oport);
	else if (fd != m->given_fd)
		close(fd);
	return rc;
}

/* open_initiator() - A socket of its own, or the listener's */
static int open_initiator(struct ctx *c, struct flow *flow,
			  const struct listener *l, struct miss *m)
{
	int fd = given_fd_of(flow, INISIDE, m);

	if (fd >= 0 || flow->f.pif[INISIDE] == PIF_HOST)
		fd = udp_connect_ini(c, flow, l, fd);
	if (fd < 0)
		udp_flow_of(flow)->listener = l->serial;
	return fd;
}

static int udp_splice_open(struct ctx *c, struct flow *flow,
			   const struct verdict *v, struct miss *m)
{
	struct listener *l;
	int fd, rc;

	udp_flow_init(flow);
	l = udp_listener_asked(c, flow, m);
	if (!l)
		return -ENOTCONN;
	rc = open_target(c, flow, m);
	if (rc)
		return rc;
	timer_set(&c->timers, flow, c->now + UDP_TIMEOUT);
	udp_cross_open(c, flow, m, v->crosses);

	fd = open_initiator(c, flow, l, m);
	udp_catch_up(c, flow, l, m, fd);
	if (fd >= 0)
		udp_setup(fd);
	return 0;
}

const struct handler udp_splice_handler = {
	.ipproto = IPPROTO_UDP,
	.splices = true,
	.open = udp_splice_open,
	.interest = dgram_interest,
	.from_sock = udp_from_sock,
	.timer = udp_timer,
	.defer = udp_defer,
};
