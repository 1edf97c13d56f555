/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_timer.c - When time is to do something to a connection
 *
 * A flow has one deadline, the earliest of three causes:
 *
 *   retransmission (@retx_at): SYN, data or FIN not acknowledged, or the
 *	guest's window closed while the socket has data (then it is a probe).
 *	Doubles at each time-out in a row. The guest is a few microseconds
 *	away, so the first one comes after RTO_MIN, not after 200 ms; a lone
 *	small segment waits RTO_DELACK, since the guest may delay its ACK.
 *   retry (@retry_at): the tap refused a segment. Nothing is lost by that, and
 *	nothing that is in flight is sent again. Or consuming was put off.
 *   keepalive (@heard): nothing heard of the guest for KEEPALIVE_IDLE, then
 *	some probes; RFC 9293 section 3.8.4. Much sooner after the guest's FIN.
 *	Once it has heard everything: how long the peer may take none of its bytes.
 *	Before the connection stands: how long the handshake is waited for.
 *
 * The rest of TCP tells what happened; only this file arms. What is done then
 * stands in tcp_timeout.c.
 */

#include "proto/tcp_conn.h"

#define RTO_SYN	   (200 * NSEC_PER_MSEC) /* one hop: not RFC 6298's 1 s */
#define RTO_MIN	   (10 * NSEC_PER_MSEC)
#define RTO_DELACK (50 * NSEC_PER_MSEC) /* above Linux' 40 ms */
#define RTO_MAX	   (60 * NSEC_PER_SEC)	/* RFC 6298 (2.5) */
/* Once the connection stands: the guest, one hop away, gets six chances to say
 * that it is there before it is given up for silence */
#define RTO_MAX_STANDS	 (20 * NSEC_PER_SEC)
#define PERSIST_MIN	 (200 * NSEC_PER_MSEC)
#define KEEPALIVE_IDLE	 (7200 * NSEC_PER_SEC)
#define HALF_CLOSED_IDLE (30 * NSEC_PER_SEC)
/* Above the longest pause of a SYN that goes out again: 64 s in Linux */
#define HANDSHAKE_IDLE	(120 * NSEC_PER_SEC)
#define KEEPALIVE_INTVL (75 * NSEC_PER_SEC)
#define TAP_RETRY	(2 * NSEC_PER_MSEC)
#define PUT_OFF		(5 * NSEC_PER_MSEC)
#define STALLED_RETRY	NSEC_PER_SEC
#define RESUME_BATCH	64 /* flows that send again in one millisecond */

/* tcp_timer_rto() - How long to wait for an acknowledgement, ns */
uint64_t tcp_timer_rto(const struct flow *flow, const struct tcp_conn *conn)
{
	uint64_t t, max = RTO_MAX_STANDS;

	if (!tcp_has(flow, TCP_EV_ESTABLISHED))
		t = RTO_SYN, max = RTO_MAX;
	else if (conn->persist)
		t = PERSIST_MIN;
	else
		t = (conn->srtt + 4ULL * conn->rttvar) * NSEC_PER_USEC;

	if (conn->snd_nxt - conn->snd_una < conn->mss)
		t = MAX(t, RTO_DELACK);
	t = MAX(t, RTO_MIN);
	return MIN(t << MIN(conn->backoff, 16), max);
}

/* tcp_timer_idle() - When a silent guest is to be probed for being there, or its
 * handshake given up, ns
 *
 * A guest that has sent its FIN may forget the connection, which it does after
 * a minute if its program is gone (Linux' tcp_fin_timeout); we would wait for
 * the peer until it ends, if ever. So it is asked more often. One that has heard
 * the peer's end, too, is not asked: then the peer may take its time as long.
 */
uint64_t tcp_timer_idle(const struct flow *flow, const struct tcp_conn *conn)
{
	bool half = tcp_has(flow, TCP_EV_GUEST_FIN) && !tcp_is_heard(flow);
	uint64_t idle = half ? HALF_CLOSED_IDLE : KEEPALIVE_IDLE;

	if (!tcp_has(flow, TCP_EV_ESTABLISHED))
		return conn->heard + HANDSHAKE_IDLE;
	return conn->heard + idle + conn->probes * KEEPALIVE_INTVL;
}

/* tcp_timer_arm() - The one place that arms */
void tcp_timer_arm(struct ctx *c, struct flow *flow)
{
	const struct tcp_conn *conn = tcp_conn(flow);
	uint64_t idle = tcp_timer_idle(flow, conn);

	if (conn->retx_at)
		idle = MIN(conn->retx_at, idle);
	if (conn->retry_at)
		idle = MIN(conn->retry_at, idle);
	timer_set(&c->timers, flow, idle);
}

/* tcp_timer_started() - The flow exists */
void tcp_timer_started(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->heard = c->now;
	tcp_timer_arm(c, flow);
}

/* tcp_timer_heard() - A segment of the guest arrived, or went on to the peer */
void tcp_timer_heard(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	conn->heard = c->now;
	conn->stuck_since = 0;
	conn->probes = 0;
}

/* tcp_timer_data_sent() - Something that the guest must acknowledge went out */
void tcp_timer_data_sent(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	conn->refusals = 0;
	if (!conn->rtt_start) {
		conn->rtt_start = c->now;
		conn->rtt_seq = conn->snd_nxt;
	}
	if (conn->retx_at && !conn->persist)
		return;
	conn->persist = false;
	conn->retx_at = c->now + tcp_timer_rto(flow, conn);
	tcp_timer_arm(c, flow);
}

/* RFC 6298 section 2, in microseconds */
static void rtt_sample(struct tcp_conn *conn, uint64_t ns)
{
	uint32_t us = (uint32_t)MIN(ns / NSEC_PER_USEC, 60000000ULL) + 1;
	uint32_t diff;

	if (!conn->srtt) {
		conn->srtt = us;
		conn->rttvar = us / 2;
		return;
	}
	diff = us > conn->srtt ? us - conn->srtt : conn->srtt - us;
	conn->rttvar = (3 * conn->rttvar + diff) / 4;
	conn->srtt = (7 * conn->srtt + us) / 8;
}

/* tcp_timer_acked() - snd_una moved on */
void tcp_timer_acked(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->rtt_start && seq_le(conn->rtt_seq, conn->snd_una)) {
		if (conn->rtt_start != TCP_RTT_VOID)
			rtt_sample(conn, c->now - conn->rtt_start);
		conn->rtt_start = 0;
	}
	conn->backoff = 0;
	conn->persist = false;
	conn->retx_at = conn->snd_una == conn->snd_nxt ?
				0 :
				c->now + tcp_timer_rto(flow, conn);
	tcp_timer_arm(c, flow);
}

/* tcp_timer_window_closed() - Data waits for a window that is closed */
void tcp_timer_window_closed(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->retx_at)
		return;
	conn->persist = true;
	conn->retx_at = c->now + tcp_timer_rto(flow, conn);
	tcp_timer_arm(c, flow);
}

/* tcp_timer_put_off() - What pays only later is to be done soon */
void tcp_timer_put_off(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->retry_at)
		return;
	conn->retry_at = c->now + PUT_OFF;
	tcp_timer_arm(c, flow);
}

/* tcp_timer_tap_full() - The tap refused a segment: try again soon */
void tcp_timer_tap_full(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->retry_at)
		return;
	conn->retry_at = c->now + (TAP_RETRY << MIN(conn->refusals, 9));
	conn->refusals += conn->refusals < UINT8_MAX;
	tcp_timer_arm(c, flow);
}

/* tcp_timer_stalled() - It is time to send again, but the guest takes nothing:
 * it is full or away, and neither silent nor slow. Wait for it, not for time */
void tcp_timer_stalled(struct ctx *c, struct flow *flow)
{
	struct tcp_shared *s = tcp_shared(c);
	struct tcp_conn *conn = tcp_conn(flow);

	conn->rtt_start = TCP_RTT_VOID;
	conn->rtt_seq = conn->snd_nxt;
	if (!conn->stalled && s->stalled_count < c->ft.max) {
		s->stalled[s->stalled_count++] =
			flow_sidx(&c->ft, flow, tcp_tapside(flow));
		conn->stalled = true;
	}
	/* Entries of flows that ended may fill the list: then look again */
	conn->retx_at = conn->stalled ? 0 : c->now + STALLED_RETRY;
	tcp_timer_arm(c, flow);
}

/* tcp_timer_resume() - The guest takes frames again: who had stalled sends
 * again when its time-out has passed, as if nothing had been lost before; a few
 * flows at a time. Goes on at the next flush when the budget is spent. */
void tcp_timer_resume(struct ctx *c)
{
	struct tcp_shared *s = tcp_shared(c);

	for (unsigned i = 0; s->stalled_count; i++) {
		struct flow *flow;
		struct tcp_conn *conn;

		if (budget_is_spent(&c->budget))
			return;
		budget_spend(&c->budget, WORK_LOOK);
		flow = flow_at(&c->ft, s->stalled[--s->stalled_count]);
		if (!flow || flow->f.type != FLOW_TCP)
			continue;
		conn = tcp_conn(flow);
		if (!conn->stalled) /* another flow, in the entry of one */
			continue;
		conn->stalled = false;
		conn->backoff = 0;
		conn->retx_at = c->now + tcp_timer_rto(flow, conn) +
				i / RESUME_BATCH * NSEC_PER_MSEC;
		tcp_timer_arm(c, flow);
	}
}
