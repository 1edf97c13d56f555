/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_inspect.c - Connections whose guest says first where it wants to go
 *
 * The guest's handshake is completed without a socket, and what the guest says
 * then waits in the receive queue. Python is told of it, and reads it; then the
 * connection goes on to an address (tcp_connect()), or gets a socket that is
 * connected already (tcp_adopt()), or ends. Nothing of it leaves before.
 */

#include "proto/tcp_conn.h"

/* tcp_inspect_open() - The guest opens: its SYN is answered as soon as it is read */
int tcp_inspect_open(struct ctx *c, struct flow *flow)
{
	int place = inspected_add(&c->inspected, flow_id(&c->ft, flow));

	if (place < 0)
		return place;
	tcp_conn(flow)->inspected = (uint16_t)(place + 1);
	tcp_event(c, flow, TCP_EV_ACCEPTED);
	return 0;
}

/* tcp_inspect_news() - The guest has said more, or says no more */
void tcp_inspect_news(struct ctx *c, struct flow *flow)
{
	inspected_news(&c->inspected, tcp_conn(flow)->inspected - 1U);
}

/* tcp_inspect_done() - A connection has a socket: it is like others from now on */
void tcp_inspect_done(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->inspected)
		inspected_remove(&c->inspected, conn->inspected - 1U);
	conn->inspected = 0;
}

/* tcp_said() - The handler's said(): as nothing was taken from the receive queue
 * yet, what counts lies at the beginning of its first buffer */
struct iovec tcp_said(const struct ctx *c, struct flow *flow, bool *ret_ended)
{
	struct iovec iov = { 0 };

	_Static_assert(INSPECTED_BYTES <= TCP_CHUNK, "in one buffer");
	(void)tcp_rcvq_iov(c, tcp_conn(flow), &iov, 1);
	iov.iov_len = MIN(iov.iov_len, (size_t)INSPECTED_BYTES);
	*ret_ended = tcp_has(flow, TCP_EV_GUEST_FIN);
	return iov;
}
