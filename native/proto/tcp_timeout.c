/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_timeout.c - What time does to a connection, when its deadline has passed
 *
 * Send again, probe, do what was put off, or give up. tcp_timer.c tells the
 * causes of a deadline.
 */

#include "proto/tcp_conn.h"

#define SYN_TRIES	 8		      /* 0.2+0.4+...+51 s: 102 s */
#define STUCK_MAX	 (120 * NSEC_PER_SEC) /* guest silent, data waiting */
#define KEEPALIVE_PROBES 9

/* The guest's window is closed: does anything wait for it at all? */
static void probe(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (tcp_probe_window(c, flow) || flow->f.closed)
		return;
	conn->persist = false;
	conn->retx_at = 0;
	conn->backoff = 0;
	conn->stuck_since = 0;
	tcp_to_tap(c, flow); /* a FIN needs no window */
}

/* Do what was put off */
static void retry(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->retry_at = 0;
	tcp_consume(c, flow, true);
	tcp_resend(c, flow);
	tcp_to_tap(c, flow);
}

/* Retransmit; false when the flow was given up */
static bool retransmit(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (c->tap.blocked) {
		if (!tcp_has(flow, TCP_EV_ESTABLISHED) &&
		    c->now >= tcp_timer_idle(flow, conn))
			return false;
		tcp_timer_stalled(c, flow);
		return true;
	}
	if (!tcp_has(flow, TCP_EV_ESTABLISHED)) {
		if (conn->backoff >= SYN_TRIES)
			return false;
		conn->rtt_start = TCP_RTT_VOID;
		(void)tcp_send_syn(c, flow);
		return true;
	}
	if (!conn->stuck_since)
		conn->stuck_since = c->now;
	if (c->now - conn->stuck_since >= STUCK_MAX)
		return false;

	if (conn->persist) {
		probe(c, flow);
	} else {
		count(&c->cnt, CNT_TCP_RTO);
		/* RFC 2018 section 8: what it SACKed it may have dropped */
		if (conn->backoff ||
		    (conn->n_sacked && conn->sacked[0].start == conn->snd_una))
			conn->n_sacked = 0;
		conn->lost_end = conn->snd_nxt;
		conn->retx_nxt = conn->snd_una;
		conn->retx_mark = conn->snd_nxt;
		tcp_resend(c, flow);
	}
	return true;
}

/* A segment just before the window: the guest answers with its ACK. A handshake
 * has none, and a guest that went away amid one does not finish it; nor does it
 * answer once it has heard everything */
static bool keepalive(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (!tcp_has(flow, TCP_EV_ESTABLISHED) || tcp_is_heard(flow))
		return false;
	if (c->tap.blocked) { /* nobody could answer: begin anew */
		conn->heard = c->now;
		return true;
	}
	if (conn->probes >= KEEPALIVE_PROBES)
		return false;
	conn->probes++;
	count(&c->cnt, CNT_TCP_PROBES);
	(void)tcp_send(c, flow, TCP_FLAG_ACK, conn->snd_una - 1, NULL, 0);
	return true;
}

/* tcp_timeout() - The handler's timer(): the flow's deadline passed */
void tcp_timeout(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	bool alive = true;

	if (conn->retry_at && c->now >= conn->retry_at) {
		retry(c, flow);
		if (flow->f.closed)
			return;
	} else if (conn->retx_at && c->now >= conn->retx_at) {
		uint64_t was = conn->retx_at;

		alive = retransmit(c, flow);
		if (flow->f.closed)
			return;
		if (alive && conn->retx_at == was) {
			conn->backoff++;
			conn->retx_at = c->now + tcp_timer_rto(flow, conn);
			if (conn->stuck_since)
				conn->retx_at =
					MIN(conn->retx_at,
					    conn->stuck_since + STUCK_MAX);
		}
	} else {
		alive = c->now < tcp_timer_idle(flow, conn) ||
			keepalive(c, flow);
	}
	if (!alive) {
		count(&c->cnt, CNT_TCP_TIMEOUT);
		tcp_reset(c, flow, WHY_TIMEOUT, 0);
		return;
	}
	tcp_timer_arm(c, flow);
}
