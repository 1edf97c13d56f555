/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice.c - TCP from socket to socket: how spliced connections begin and end
 *
 * DOC: the accepted connection (INISIDE) and ours to the target (TGTSIDE) are
 * joined byte by byte; the events SPLICE_EV_* say where each of them stands:
 *
 *   accept -> miss -> verdict -> open(): CONNECTING, if it takes any time
 *   refused: the accepted side is reset, as by a host with a closed port
 *   connected: bytes move, from now on both sides are alike
 *   a side's FIN: IN_DONE; when the other one has all its bytes, shutdown() is
 *     OUT_DONE there; OUT_DONE on both sides: done
 *   a side is reset: OVER. What it sent before still goes to the other side,
 *     which is reset only after it has acknowledged all of it: a reset never
 *     overtakes data, and is never a mere end of data either
 *
 * Either side may be a UNIX socket. Such a peer hears of no reset, only of an end; when
 * it closes epoll tells EPOLLHUP, as of a TCP peer only after both have ended: LEFT.
 *
 * There is no idle limit: both ends are kernels of this machine, and tell us.
 */

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/reset.h"
#include "base/sock.h"
#include "base/sys.h"
#include "proto/proxy.h"
#include "proto/splice.h"

/* A survivor of an aborted connection: how often we look whether it has all
 * its bytes, and how long it may go without acknowledging any */
#define ABORT_POLL    (5 * NSEC_PER_MSEC)
#define ABORT_GIVE_UP (10 * NSEC_PER_SEC)

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Give back what a connection holds; more than once does no harm */
static void release(struct ctx *c, struct flow *flow)
{
	for (unsigned sidei = 0; sidei < SIDES; sidei++) {
		int fd;

		splice_release(c, flow, sidei);
		/* One that another process made is closed there a bit later */
		if (splice_conn(flow)->local[sidei])
			flow_epoll_del(&c->epoll, flow, sidei);
		fd = flow_take_fd(&c->ft, flow, sidei);
		if (fd >= 0)
			(void)close(fd);
	}
}

/* Nothing is left to do: both ends hear of it now, not at the next scan */
static void splice_close(struct ctx *c, struct flow *flow, enum flow_why why,
			 int err)
{
	release(c, flow);
	flow_mark_closed(&c->ft, flow, why, err, c->now);
}

static void splice_reset(struct ctx *c, struct flow *flow, enum flow_why why,
			 int err)
{
	for (unsigned i = 0; i < SIDES; i++) {
		reset_on_close(flow->f.fd[i]);
		if (!splice_is(flow, SPLICE_EV_OVER, i) &&
		    (i == INISIDE || !(flow->f.events & SPLICE_EV_CONNECTING)))
			ctx_said(c, flow, i, CAPTURE_RST_WENT);
	}
	splice_close(c, flow, why, err);
}

/* What a side waits for, level-triggered: waiting for output on one side also
 * silences input on the other, so that a full socket costs no wake-ups. Errors
 * need no asking; EPOLLERR only says "stay registered". */
static uint32_t splice_interest(const struct flow *flow, unsigned sidei)
{
	uint32_t in_done = splice_is(flow, SPLICE_EV_IN_DONE, sidei);
	uint32_t events = EPOLLERR;

	/* Only the target is connected by us; until it is, nobody is read */
	if (flow->f.events & SPLICE_EV_CONNECTING)
		return sidei == TGTSIDE ? EPOLLOUT : 0;
	/* Nothing more to come, and EPOLLHUP for ever */
	if (splice_is(flow, SPLICE_EV_OVER, sidei) ||
	    splice_is(flow, SPLICE_EV_LEFT, sidei) ||
	    (in_done && splice_is(flow, SPLICE_EV_OUT_DONE, sidei)))
		return 0;
	if (!in_done && !splice_is(flow, SPLICE_EV_BLOCKED, !sidei) &&
	    !splice_is(flow, SPLICE_EV_WAITS, sidei))
		events |= EPOLLIN;
	if (splice_is(flow, SPLICE_EV_BLOCKED, sidei))
		events |= EPOLLOUT;
	return events;
}

/* watch() - Wait for what is missing now; at the end of each event */
static void watch(struct ctx *c, struct flow *flow)
{
	for (unsigned i = 0; i < SIDES; i++) {
		int rc = flow_epoll_set(&c->epoll, &c->ft, flow, i, c->now);

		if (rc) { /* the kernel has no memory left */
			splice_reset(c, flow, WHY_NO_BUFFER, -rc);
			return;
		}
	}
}

/* is_delivered() - Is all that a side sent in the other one's socket? */
static bool is_delivered(struct flow *flow, unsigned from)
{
	return splice_is(flow, SPLICE_EV_IN_DONE, from) &&
	       !splice_conn(flow)->dir[from].held;
}

/* abort_wait() - Wait with the reset until a survivor acknowledged its bytes
 * Return: false when there is nobody to wait for any longer */
static bool abort_wait(struct ctx *c, struct flow *flow)
{
	struct splice_conn *conn = splice_conn(flow);
	uint64_t acked = flow->f.bytes[INISIDE] + flow->f.bytes[TGTSIDE];
	bool waits = !is_delivered(flow, INISIDE) ||
		     !is_delivered(flow, TGTSIDE);

	for (unsigned i = 0; i < SIDES; i++) {
		int bytes = 0;

		/* What a UNIX socket took is its peer's, whatever follows */
		if (splice_is(flow, SPLICE_EV_OVER, i) || conn->local[i] ||
		    sys_ioctl(flow->f.fd[i], SIOCOUTQ, &bytes) || !bytes)
			continue;
		waits = true;
		acked -= (uint64_t)bytes;
	}
	if (!waits)
		return false;
	if (!conn->give_up || acked != conn->acked)
		conn->give_up = c->now + ABORT_GIVE_UP;
	if (c->now >= conn->give_up)
		return false;
	conn->acked = acked;
	timer_set(&c->timers, flow, c->now + ABORT_POLL);
	return true;
}

/* pass_on_ends() - Who has all the bytes of a side that ended is told so */
static void pass_on_ends(struct ctx *c, struct flow *flow)
{
	for (unsigned i = 0; i < SIDES; i++) {
		if (!is_delivered(flow, i) || !splice_conn(flow)->dir[i].eof ||
		    splice_is(flow, SPLICE_EV_OUT_DONE, !i))
			continue;
		(void)sys_shutdown(flow->f.fd[!i], SHUT_WR);
		splice_event(c, flow, SPLICE_EV(SPLICE_EV_OUT_DONE, !i), 0);
		ctx_said(c, flow, !i, CAPTURE_FIN_WENT);
	}
}

/* settle() - After bytes moved: pass on the ends, and end when all is done */
static void settle(struct ctx *c, struct flow *flow)
{
	struct splice_conn *conn = splice_conn(flow);

	if (!conn->abort && is_delivered(flow, INISIDE) &&
	    is_delivered(flow, TGTSIDE)) {
		for (unsigned i = 0; i < SIDES; i++)
			if (!splice_is(flow, SPLICE_EV_OUT_DONE, i))
				ctx_said(c, flow, i, CAPTURE_FIN_WENT);
		splice_close(c, flow, WHY_DONE, 0); /* says so to both */
		return;
	}
	pass_on_ends(c, flow);
	if (conn->abort && !abort_wait(c, flow)) {
		splice_reset(c, flow, WHY_RST_PEER, conn->err);
		return;
	}
	watch(c, flow);
}

/* ask_again() - Nobody listens there: is there another verdict? If so, the flow
 * is closed, and the client, who is accepted already, hears nothing of it */
static bool ask_again(struct ctx *c, struct flow *flow)
{
	if (splice_conn(flow)->again)
		return false;
	flow_epoll_del(&c->epoll, flow, INISIDE);
	if (!stage_refused(&c->stage, flow, flow->f.fd[INISIDE], c->now))
		return false;
	(void)flow_take_fd(&c->ft, flow, INISIDE);
	splice_close(c, flow, WHY_REFUSED, ECONNREFUSED);
	return true;
}

/* connected() - Did connect() work? False: no, and the flow is closed */
static bool connected(struct ctx *c, struct flow *flow)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (sys_getsockopt(flow->f.fd[TGTSIDE], SOL_SOCKET, SO_ERROR, &err,
			   &len))
		err = errno;
	if (err && err != ECONNRESET && err != EPIPE) {
		flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
		if (err == ECONNREFUSED)
			ctx_said(c, flow, TGTSIDE, CAPTURE_REFUSED);
		if (err == ECONNREFUSED && ask_again(c, flow))
			return false;
		splice_reset(c, flow,
			     err == ECONNREFUSED ? WHY_REFUSED :
			     err == ETIMEDOUT	 ? WHY_TIMEOUT :
						   WHY_UNREACHABLE,
			     err);
		return false;
	}
	splice_event(c, flow, 0, SPLICE_EV_CONNECTING);
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTED);
	if (err) /* it worked, and was reset since */
		splice_over(c, flow, TGTSIDE, err);
	return true;
}

/* left() - The peer of a UNIX socket has closed it, and had read everything: that is
 * an end of what it sends, and whatever else it is given fails */
static void left(struct ctx *c, struct flow *flow, unsigned sidei)
{
	splice_event(c, flow, SPLICE_EV(SPLICE_EV_LEFT, sidei),
		     SPLICE_EV(SPLICE_EV_BLOCKED, sidei));
	if (!splice_is(flow, SPLICE_EV_BLOCKED, !sidei))
		splice_move(c, flow, sidei);
	if (splice_conn(flow)->dir[!sidei].held)
		splice_move(c, flow, !sidei);
}

static void splice_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
			     uint32_t events)
{
	if (flow->f.events & SPLICE_EV_CONNECTING) {
		if (!connected(c, flow))
			return;
		/* A client that speaks first has most likely done so */
		sidei = INISIDE;
		events = EPOLLIN;
	}
	if (events & EPOLLOUT && splice_is(flow, SPLICE_EV_BLOCKED, sidei)) {
		splice_event(c, flow, 0, SPLICE_EV(SPLICE_EV_BLOCKED, sidei));
		splice_move(c, flow, !sidei);
	}
	if (events & EPOLLHUP && !(events & EPOLLERR) &&
	    splice_conn(flow)->local[sidei])
		left(c, flow, sidei);
	else if (events & (EPOLLERR | EPOLLHUP))
		splice_over(c, flow, sidei, 0);
	else if (events & EPOLLIN &&
		 !splice_is(flow, SPLICE_EV_BLOCKED, !sidei))
		splice_move(c, flow, sidei);
	settle(c, flow);
}

static int bind_source(int fd, const struct flowside *side)
{
	union sockaddr_inany sa;
	socklen_t len;
	int on = 1;

	if (inany_is_any(&side->oaddr))
		return 0;
	if (!side->oport)
		(void)sys_setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on,
				     sizeof(on));
	len = inany_to_sa(&sa, &side->oaddr, side->oport, 0);
	return sys_bind(fd, &sa.sa, len) ? -errno : 0;
}

/* target_socket() - The one that came with the verdict, or one of the host's */
static int target_socket(struct ctx *c, const struct flow *flow, struct miss *m)
{
	bool v4 = inany_is_v4(&flow->f.side[TGTSIDE].eaddr);
	int fd = m->given_fd;

	if (fd >= 0)
		return fd;
	fd = sys_socket(v4 ? AF_INET : AF_INET6,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			IPPROTO_TCP);
	if (fd >= 0)
		return fd;
	count(&c->cnt, CNT_SOCK_EMFILE);
	flow_log(&c->log, c->now, SOCK_LIMIT, flow, errno, 0, 0, 0);
	return -errno;
}

/* splice_connect() - Connect to the target
 * Return: 0, -EINPROGRESS, or another -errno */
static int splice_connect(int fd, const struct flowside *side)
{
	union sockaddr_inany sa;
	socklen_t len;
	int rc = bind_source(fd, side);

	if (rc)
		return rc;
	len = inany_to_sa(&sa, &side->eaddr, side->eport, 0);
	if (!sys_connect(fd, &sa.sa, len))
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	/* On loopback all is done by now, though the first call cannot tell */
	if (!sys_connect(fd, &sa.sa, len))
		return 0;
	return errno == EALREADY ? -EINPROGRESS : -errno;
}

/* splice_join() - Make two sockets a flow's; on failure they stay its caller's
 * @connecting:	The target's has no answer yet */
static int splice_join(struct ctx *c, struct flow *flow, int ini, int tgt,
		       bool connecting)
{
	int rc;

	flow_set_events(flow, connecting ? SPLICE_EV_CONNECTING : 0);
	rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, tgt, c->now);
	if (rc)
		return rc;
	rc = flow_adopt(&c->epoll, &c->ft, flow, INISIDE, ini, c->now);
	if (rc)
		(void)flow_take_fd(&c->ft, flow, TGTSIDE);
	return rc;
}

static void splice_options(int fd)
{
	int on = 1;

	(void)sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* An urgent byte is one of the stream (RFC 6093), not beside it */
	(void)sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

static int splice_open(struct ctx *c, struct flow *flow,
		       const struct verdict *v, struct miss *m)
{
	struct splice_conn *conn = splice_conn(flow);
	uint8_t header[PROXY_HEADER_MAX];
	/* That of the namespace has still to be connected */
	bool joined = m->given_fd >= 0 && v->pif == PIF_HOST;
	int fd, rc;

	if (m->fd < 0)
		return -ENOTCONN;
	if (joined && !sock_is_unix(m->given_fd))
		return -EPROTOTYPE;
	for (unsigned i = 0; i < SIDES; i++)
		conn->dir[i] = (struct splice_dir){
			.head = POOL_NONE,
			.want = SPLICE_READ_MIN,
		};
	conn->again = m->again;
	conn->local[INISIDE] = sock_is_unix(m->fd);
	conn->local[TGTSIDE] = joined;
	if (v->proxy && splice_room(c) < PROXY_HEADER_MAX)
		return -ENOBUFS;
	fd = target_socket(c, flow, m);
	if (fd < 0)
		return fd;
	splice_options(fd);
	splice_options(m->fd);
	rc = joined ? 0 : splice_connect(fd, &flow->f.side[TGTSIDE]);
	/* A header is held, and goes out once the target is known to be there */
	if (!rc || rc == -EINPROGRESS)
		rc = splice_join(c, flow, m->fd, fd, rc || v->proxy);
	if (rc) {
		if (fd != m->given_fd)
			(void)close(fd);
		return rc;
	}
	if (v->proxy)
		splice_hold(c, &conn->dir[INISIDE], header,
			    proxy_header(header, v->proxy,
					 conn->local[INISIDE] ?
						 NULL :
						 &flow->f.side[INISIDE]));
	m->fd = -1;
	if (!m->begun) /* a client is accepted once */
		ctx_said(c, flow, INISIDE, CAPTURE_ACCEPTED);
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTING);
	if (!(flow->f.events & SPLICE_EV_CONNECTING))
		ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTED);
	return 0;
}

/* splice_timer() - While aborting only */
static void splice_timer(struct ctx *c, struct flow *flow)
{
	settle(c, flow);
}

static void splice_close_asked(struct ctx *c, struct flow *flow,
			       enum flow_why why)
{
	splice_reset(c, flow, why, 0);
}

static bool splice_defer(struct ctx *c, struct flow *flow)
{
	release(c, flow);
	return true;
}

const struct handler splice_handler = {
	.ipproto = IPPROTO_TCP,
	.splices = true,
	.open = splice_open,
	.interest = splice_interest,
	.from_sock = splice_from_sock,
	.timer = splice_timer,
	.close = splice_close_asked,
	.defer = splice_defer,
};
