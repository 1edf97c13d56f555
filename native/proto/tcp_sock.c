/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_sock.c - Bytes of the guest into the socket
 *
 * What the socket does not take is kept in the receive queue, never dropped:
 * the guest sent it inside the window that we advertised. TCP sockets are
 * edge-triggered, so after a short write the next EPOLLOUT drains the queue.
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "proto/tcp_conn.h"
#include "table/meter.h"

#define SOCK_IOV 16 /* entries of one sendmsg(): half a MiB at most */

/* sock_hurry() - The kernel must not wait for company of small segments (Nagle),
 * which it would do when some are unacknowledged: not with the first */
static void sock_hurry(struct flow *flow, uint32_t len)
{
	struct tcp_conn *conn = tcp_conn(flow);
	bool first = !conn->spoke;
	int on = 1;

	conn->spoke = true;
	if (first && len <= TCP_GUEST_MSS)
		return;
	conn->nodelay = true;
	(void)sys_setsockopt(tcp_fd(flow), IPPROTO_TCP, TCP_NODELAY, &on,
			     sizeof(on));
}

/* Return: bytes taken, 0 when the socket is full, or -errno */
static ssize_t sock_send(struct ctx *c, struct flow *flow, struct iovec *iov,
			 unsigned n, uint32_t len)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t took;

	if (!tcp_conn(flow)->nodelay)
		sock_hurry(flow, len);
	do {
		took = sys_sendmsg(tcp_fd(flow), &mh,
				   MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (took < 0 && errno == EINTR);
	if (took < 0)
		took = -errno;
	budget_spend(&c->budget,
		     WORK_CALL + work_bytes((uint64_t)MAX(took, 0)));
	if (took > 0)
		ctx_moved(c, flow, tcp_sockside(flow), iov, (uint32_t)took, 0);
	flow_log(&c->log, c->now, TCP_SOCK_SEND, flow, len, MAX(took, 0),
		 took < 0 ? -took : 0, 0);
	return took == -EAGAIN || took == -ENOBUFS || took == -ENOMEM ? 0 :
									took;
}

/* The guest's FIN came, and every byte before it went out */
static void sock_finish(struct ctx *c, struct flow *flow)
{
	if (!tcp_has(flow, TCP_EV_GUEST_FIN) ||
	    tcp_has(flow, TCP_EV_FIN_PASSED) ||
	    tcp_rcvq_held(c, tcp_conn(flow)))
		return;
	/* Nothing left in the other direction either: close() sends the FIN */
	if (!tcp_has(flow, TCP_EV_FIN_ACKED))
		(void)sys_shutdown(tcp_fd(flow), SHUT_WR);
	tcp_event(c, flow, TCP_EV_FIN_PASSED);
	ctx_said(c, flow, tcp_sockside(flow), CAPTURE_FIN_WENT);
}

/**
 * tcp_sock_drain() - Give the socket what is held for it
 *
 * Bounded: what is more than the flow's share of work follows later.
 * The flow may be closed afterwards.
 */
void tcp_sock_drain(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t held = tcp_rcvq_held(c, conn);
	bool moved = false;

	if (conn->inspected) {
		tcp_inspect_news(c, flow);
		return;
	}
	if (conn->joining) /* shutdown() would end what connect() began */
		return;
	while (held) {
		struct iovec iov[SOCK_IOV];
		ssize_t took;
		unsigned n;

		if (moved && budget_is_spent(&c->budget)) {
			ready_add(&c->ft, flow, tcp_sockside(flow));
			break;
		}
		n = tcp_rcvq_iov(c, conn, iov, SOCK_IOV);
		took = sock_send(c, flow, iov, n, held);
		if (took < 0) {
			tcp_reset(c, flow, WHY_RST_PEER, (int)-took);
			return;
		}
		if (!took)
			break;
		tcp_rcvq_taken(c, conn, (uint32_t)took);
		held -= (uint32_t)took;
		moved = true;
	}
	if (moved && tcp_is_heard(flow))
		tcp_timer_heard(c, flow);
	/* After its FIN the guest wants no window, and may have forgotten the
	 * connection: it would answer with RST */
	if (moved && !tcp_has(flow, TCP_EV_GUEST_FIN) &&
	    tcp_window_opened(c, flow))
		tcp_ack_at_flush(c, flow);
	sock_finish(c, flow);
	tcp_finish_if_done(c, flow);
}

/**
 * tcp_sock_take() - Bytes in order from the guest, starting at rcv_nxt
 * @iov:	Bytes, inside the window
 * @n:		Entries
 * @len:	Bytes in total
 *
 * Moves rcv_nxt over everything that the socket took or that is held.
 *
 * Return: 0, or -errno of the socket: the connection is to be reset
 */
int tcp_sock_take(struct ctx *c, struct flow *flow, struct iovec *iov,
		  unsigned n, uint32_t len)
{
	struct tcp_conn *conn = tcp_conn(flow);
	ssize_t took = 0;
	uint32_t from;

	if (!tcp_rcvq_held(c, conn) && !conn->inspected) {
		took = sock_send(c, flow, iov, n, len);
		if (took < 0)
			return (int)took;
	}
	if ((uint32_t)took == len) {
		tcp_rcvq_skip(c, conn, len);
	} else if (tcp_rcvq_in_order(c, conn, iov, n, (uint32_t)took)) {
		len = (uint32_t)took; /* no buffer: the guest sends again */
	} else {
		tcp_shared(c)->held += len - (uint32_t)took;
		count_n(&c->cnt, CNT_TCP_BUFFERED, len - (uint32_t)took);
	}
	from = conn->rcv_nxt;
	tcp_window_join(c, conn, len,
			meter_left(&c->ft, flow, tcp_tapside(flow)));
	if (meter_has(flow))
		tcp_window_moved(c, flow, conn->rcv_nxt - from);
	if (conn->inspected)
		tcp_inspect_news(c, flow);
	else if ((uint32_t)took == len && tcp_rcvq_held(c, conn))
		tcp_sock_drain(c, flow); /* a gap was filled */
	return 0;
}

/* tcp_sock_error() - Take the error that waits at the socket; 0: none */
int tcp_sock_error(const struct flow *flow)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (sys_getsockopt(tcp_fd(flow), SOL_SOCKET, SO_ERROR, &err, &len))
		return errno;
	return err;
}
