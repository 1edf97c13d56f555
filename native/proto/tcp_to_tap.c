/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_to_tap.c - Bytes of the peer, from the socket to the guest
 *
 * They are peeked at and stay in the socket's receive queue (tcp_peek.c) until
 * the guest acknowledges them. What it lacks is peeked at again.
 */

#include <errno.h>
#include <sys/socket.h>

#include "proto/tcp_conn.h"
#include "table/meter.h"

#define PEEK_MIN     (64U << 10) /* of one recvmsg(), however small the share */
#define PEEK_BYTES   (256U << 10) /* of one recvmsg() */
#define RESEND_BYTES (256U << 10) /* sent again at a time */
#define OPTIONS_MAX  36		  /* SACK blocks on a data segment */
#define SILLY_BYTES  16384U	  /* a window this large is never silly */

/* Payload of one frame: as many whole segments as an IP packet can claim */
static uint32_t frame_bytes(const struct flow *flow,
			    const struct tcp_conn *conn)
{
	uint32_t room = 65535 - (tcp_is_v4(flow) ? 20 : 0) - 20 - OPTIONS_MAX;

	return room < conn->mss ? room : ROUND_DOWN(room, conn->mss);
}

/**
 * send_frames() - Send bytes as super-segments; stops when the tap refuses
 * @last:	Flags of the last one: TCP_FLAG_PSH, TCP_FLAG_FIN
 *
 * Return: bytes sent
 */
static uint32_t send_frames(struct ctx *c, struct flow *flow, uint32_t seq,
			    const uint8_t *data, uint32_t len, uint8_t last)
{
	uint32_t max = frame_bytes(flow, tcp_conn(flow)), sent = 0;
	TAP_BATCH_SCOPE(batch, &c->tap);

	while (sent < len) {
		uint32_t n = MIN(max, len - sent);
		uint8_t flags = TCP_FLAG_ACK;

		if (sent + n == len)
			flags |= last;
		if (tcp_send_bulk(c, flow, &batch, flags, seq + sent,
				  data + sent, n)) {
			tcp_timer_tap_full(c, flow);
			break;
		}
		sent += n;
	}
	return sent;
}

/* All data went out and the peer has ended its side: so do we */
static void send_fin(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (tcp_has(flow, TCP_EV_FIN_SENT))
		return;
	if (tcp_send(c, flow, TCP_FLAG_FIN | TCP_FLAG_ACK, conn->snd_nxt, NULL,
		     0)) {
		tcp_timer_tap_full(c, flow);
		return;
	}
	tcp_event(c, flow, TCP_EV_FIN_SENT);
}

/* The peer's data ended */
static void sock_ended(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->sock_ready = false;
	tcp_conn(flow)->sock_eof = true;
	if (tcp_has(flow, TCP_EV_PEER_FIN))
		return;
	tcp_event(c, flow, TCP_EV_PEER_FIN);
	ctx_said(c, flow, tcp_sockside(flow), CAPTURE_FIN_CAME);
}

/* How much may be sent now, bytes; 0: wait for the guest */
static uint32_t sendable(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t in_flight = conn->snd_nxt - conn->snd_una;
	uint32_t wnd = conn->snd_wnd > in_flight ? conn->snd_wnd - in_flight :
						   0;

	/* RFC 9293 3.8.6.2.1: no silly segments while an ACK is to come */
	if (wnd < MIN(conn->mss, SILLY_BYTES) && in_flight)
		return 0;
	if (!wnd)
		tcp_timer_window_closed(c, flow);
	return wnd;
}

/* allowed() - How much of @wnd limits let pass; 0: wait until they do */
static uint32_t allowed(struct ctx *c, struct flow *flow, uint32_t wnd)
{
	unsigned from = tcp_sockside(flow);

	wnd = (uint32_t)MIN(wnd, meter_left(&c->ft, flow, from));
	wnd = meter_allow(&c->ft, flow, from, wnd, c->now);
	if (!wnd)
		meter_wait(&c->ft, flow, from, c->now);
	return wnd;
}

/* The socket gave no data: at its end, for now, or for good
 * Return: false when the flow was reset */
static bool sock_empty(struct ctx *c, struct flow *flow, ssize_t got)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (got == -EAGAIN) {
		conn->sock_ready = false;
	} else if (got == 0) {
		sock_ended(c, flow);
	} else if (got != -EINTR) {
		tcp_reset(c, flow, WHY_RST_PEER, (int)-got);
		return false;
	}
	return true;
}

/* Send @got bytes just peeked at, of @want asked for. When that was all there
 * is and the peer's FIN is behind it, ours goes with the last frame.
 * Return: true if all went out */
static bool send_peeked(struct ctx *c, struct flow *flow, uint32_t got,
			uint32_t want)
{
	struct tcp_conn *conn = tcp_conn(flow);
	bool drained = got < want;
	bool end = drained && conn->sock_rdhup && !conn->peeks_short;
	uint8_t last = (drained ? TCP_FLAG_PSH : 0) | (end ? TCP_FLAG_FIN : 0);
	uint32_t sent;

	sent = send_frames(c, flow, conn->snd_nxt, c->bufs, got, last);
	conn->snd_nxt += sent;
	if (sent)
		ctx_moved(c, flow, tcp_tapside(flow),
			  &(struct iovec){ c->bufs, sent }, sent, 0);
	if (meter_has(flow))
		meter_move(&c->ft, flow, tcp_sockside(flow), sent, c->now);
	if (sent == got && end) {
		sock_ended(c, flow);
		tcp_event(c, flow, TCP_EV_FIN_SENT);
	} else if (sent) {
		tcp_timer_data_sent(c, flow);
	}
	return sent == got;
}

/* is_drained() - Was all that the socket had peeked at? Then the next byte, or the
 * end, is an edge that epoll tells: there is no need to be told EAGAIN (epoll(7)).
 * Where a peek may be short for another reason nothing follows from it */
static bool is_drained(const struct tcp_conn *conn, uint32_t got, uint32_t want)
{
	return got < want && !conn->sock_rdhup && !conn->peeks_short;
}

/* How much to peek at: about the share, in whole frames if the window allows:
 * what is left over would be a frame too, at the price of a full one */
static uint32_t peek_bytes(struct ctx *c, struct flow *flow, uint32_t wnd)
{
	uint32_t n = budget_bytes(&c->budget, PEEK_MIN, PEEK_BYTES);
	uint32_t frame = frame_bytes(flow, tcp_conn(flow));

	n = MIN(n + frame / 2, PEEK_BYTES);
	return MIN(wnd, MAX(ROUND_DOWN(n, frame), frame));
}

/**
 * tcp_to_tap() - Send the guest what the socket has and the window allows
 *
 * Bounded: a flow with more to send than its share stands in the ready list
 * then; one whose guest is full asks epoll to tell it again when there is room.
 * The flow may be closed afterwards.
 */
void tcp_to_tap(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	while (conn->sock_ready) {
		uint32_t wnd = sendable(c, flow), want;
		ssize_t got;

		if (!wnd)
			break;
		if (budget_is_spent(&c->budget)) {
			ready_add(&c->ft, flow, tcp_sockside(flow));
			break;
		}
		if (c->tap.blocked) {
			(void)flow_epoll_set(&c->epoll, &c->ft, flow,
					     tcp_sockside(flow), c->now);
			break;
		}
		if (meter_has(flow) && !(wnd = allowed(c, flow, wnd)))
			break;
		want = peek_bytes(c, flow, wnd);
		got = tcp_peek(c, flow, conn->snd_nxt, c->bufs, want);
		if (got <= 0) {
			if (!sock_empty(c, flow, got))
				return;
			break;
		}
		if (!send_peeked(c, flow, (uint32_t)got, want))
			break;
		if (is_drained(conn, (uint32_t)got, want)) {
			conn->sock_ready = false;
			break;
		}
	}
	if (conn->sock_eof && !conn->sock_ready)
		send_fin(c, flow);
}

/* Send a lost range again; FIN included if the range covers it
 * Return: sequence number up to which it was sent */
static uint32_t resend_range(struct ctx *c, struct flow *flow, uint32_t from,
			     uint32_t to)
{
	uint32_t end = tcp_data_end(flow);
	uint32_t stop = seq_lt(end, to) ? end : to;
	uint32_t len = MIN(stop - from, RESEND_BYTES);
	ssize_t got;

	if (from == end && to != end) /* only the FIN is left */
		return tcp_send(c, flow, TCP_FLAG_FIN | TCP_FLAG_ACK, from,
				NULL, 0) ?
			       from :
			       to;
	got = tcp_peek(c, flow, from, c->bufs, len);
	if (got <= 0)
		return from;
	count(&c->cnt, CNT_TCP_RETRANS);
	flow_log(&c->log, c->now, TCP_RETRANS, flow, from, got,
		 tcp_conn(flow)->backoff, 0);
	return from +
	       send_frames(c, flow, from, c->bufs, (uint32_t)got, TCP_FLAG_PSH);
}

/**
 * tcp_resend() - Send again what is known to be lost, not yet resent
 *
 * Return: true if anything was sent
 */
bool tcp_resend(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t budget = RESEND_BYTES;
	bool any = false;

	/* A pass begins: what is sent from now on comes after it */
	if (conn->sack_ok && conn->retx_nxt == conn->snd_una)
		conn->retx_mark = conn->snd_nxt;

	while (seq_lt(conn->retx_nxt, conn->lost_end) && budget) {
		uint32_t from = conn->retx_nxt, to = conn->lost_end, done;
		bool skip = false;

		for (unsigned i = 0; i < conn->n_sacked; i++) {
			const struct seq_range *r = &conn->sacked[i];

			if (seq_le(r->start, from) && seq_lt(from, r->end)) {
				conn->retx_nxt = r->end;
				skip = true;
				break;
			}
			if (seq_lt(from, r->start)) {
				to = seq_lt(r->start, to) ? r->start : to;
				break;
			}
		}
		if (skip)
			continue;
		if (to - from > budget)
			to = from + budget;
		done = resend_range(c, flow, from, to);
		if (done == from)
			break;
		any = true;
		conn->retx_nxt = done;
		budget -= done - from;
	}
	if (any) {
		conn->rtt_start = TCP_RTT_VOID;
		conn->rtt_seq = conn->snd_nxt;
		tcp_timer_data_sent(c, flow);
	}
	return any;
}

/**
 * tcp_probe_window() - One byte into a closed window (RFC 9293 3.8.6.1)
 *
 * Return: false if no byte waits for the window; the flow may be closed then
 */
bool tcp_probe_window(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint8_t byte;
	ssize_t got = tcp_peek(c, flow, conn->snd_una, &byte, 1);

	if (got != 1) {
		(void)sock_empty(c, flow, got);
		return false;
	}
	count(&c->cnt, CNT_TCP_PROBES);
	/* If the guest takes the byte, its ACK moves snd_una: count it sent */
	if (!tcp_send(c, flow, TCP_FLAG_ACK | TCP_FLAG_PSH, conn->snd_una,
		      &byte, 1) &&
	    conn->snd_nxt == conn->snd_una) {
		conn->snd_nxt++;
		ctx_moved(c, flow, tcp_tapside(flow),
			  &(struct iovec){ &byte, 1 }, 1, 0);
	}
	return true;
}
