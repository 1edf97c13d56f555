/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_end.c - How connections end: in order, by a reset, or for good
 *
 * Whatever a connection holds is given back at once, so that the peer hears of
 * the end now and not at the next deferred scan.
 */

#include <errno.h>

#include "base/reset.h"
#include "proto/tcp_conn.h"

/* tcp_abort_sock() - The peer is to see a RST when the socket is closed
 * @err:	What the socket said of its peer, or 0 */
void tcp_abort_sock(struct ctx *c, struct flow *flow, int err)
{
	bool came = err == ECONNRESET || err == EPIPE;

	if (tcp_fd(flow) < 0)
		return;
	reset_on_close(tcp_fd(flow));
	if (tcp_has(flow, TCP_EV_ACCEPTED))
		ctx_said(c, flow, tcp_sockside(flow),
			 came ? CAPTURE_RST_CAME : CAPTURE_RST_WENT);
}

/* tcp_release() - Give back what a connection holds; again does no harm */
void tcp_release(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int fd;

	/* Closing one that others hold too would leave it in epoll */
	if (conn->given)
		flow_epoll_del(&c->epoll, flow, tcp_sockside(flow));
	fd = flow_take_fd(&c->ft, flow, tcp_sockside(flow));
	if (conn->inspected) { /* Python is to forget it */
		tcp_inspect_news(c, flow);
		conn->inspected = 0;
	}
	tcp_rcvq_release(c, conn);
	tcp_window_release(c, flow);
	if (fd >= 0)
		ctx_close_later(c, fd);
}

/* tcp_close() - Nothing is left to do: give everything back at once, so that
 * the peer hears of it now and not at the next deferred scan */
void tcp_close(struct ctx *c, struct flow *flow, enum flow_why why, int err)
{
	tcp_event(c, flow, TCP_EV_CLOSED);
	tcp_release(c, flow);
	flow_mark_closed(&c->ft, flow, why, err, c->now);
}

/* tcp_reset() - End a connection toward both sides */
void tcp_reset(struct ctx *c, struct flow *flow, enum flow_why why, int err)
{
	const struct flowside *side = &flow->f.side[tcp_tapside(flow)];
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->syn_rcvd || tcp_has(flow, TCP_EV_SYN_SENT))
		tcp_send_rst(c, side, conn->snd_nxt, tcp_ack_no(flow),
			     conn->syn_rcvd ? TCP_FLAG_ACK : 0);
	tcp_abort_sock(c, flow, err);
	tcp_close(c, flow, why, err);
}

/* tcp_finish() - Both directions ended in order: forget the flow */
void tcp_finish(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	conn->snd_una = conn->snd_nxt; /* or never to be acknowledged */
	tcp_consume(c, flow, true);    /* or close() would send a RST */
	tcp_close(c, flow, WHY_DONE, 0);
}

/* tcp_finish_if_done() - The same, if the guest knows too */
void tcp_finish_if_done(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (flow->f.closed ||
	    !tcp_has(flow, TCP_EV_FIN_PASSED | TCP_EV_FIN_ACKED))
		return;
	if (conn->ack_now || conn->rcv_acked != tcp_ack_no(flow))
		(void)tcp_send(c, flow, TCP_FLAG_ACK, conn->snd_nxt, NULL, 0);
	tcp_finish(c, flow);
}

/* tcp_yield() - The handler's yield(): a client that closed its end of this
 * connection reuses its port, before the guest has acknowledged the end. Every
 * byte it has acknowledged: one that the tap has lost must be sent again */
bool tcp_yield(struct ctx *c, struct flow *flow)
{
	if (!tcp_is_over(flow) ||
	    seq_lt(tcp_conn(flow)->snd_una, tcp_data_end(flow)))
		return false;
	tcp_finish(c, flow);
	return true;
}
