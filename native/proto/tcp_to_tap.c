/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_to_tap.c - Bytes of the peer, from the socket to the guest
 *
 * They are peeked at (MSG_PEEK) and stay in the socket's receive queue until
 * the guest acknowledges them: the kernel's queue is the retransmission queue,
 * and its flow control is ours. Where the kernel has SO_PEEK_OFF for TCP
 * (6.9 and later) a peek starts where the last one ended; older ones copy what
 * was seen already into a scratch buffer first.
 */

#include <errno.h>
#include <sys/socket.h>

#include "proto/tcp_conn.h"

#define PEEK_BYTES    (256U << 10) /* of one recvmsg() */
#define EVENT_BYTES   (1U << 20)   /* of one flow before others' turn */
#define RESEND_BYTES  (256U << 10) /* sent again at a time */
#define CONSUME_BYTES (16U << 10)  /* discard from the socket at least */
#define CONSUME_SKIP  16	   /* or after so many ACKs */
#define CONSUME_LAST  1024	   /* or when no more ACK is to come */
#define OPTIONS_MAX   36	   /* SACK blocks on a data segment */
#define SILLY_BYTES   16384U	   /* a window this large is never silly */
#define SKIP_IOV      128	   /* scratch entries of an old kernel's peek */

/* Payload of one frame: as many whole segments as an IP packet can claim */
static uint32_t frame_bytes(const struct flow *flow,
			    const struct tcp_conn *conn)
{
	uint32_t room = 65535 - (tcp_is_v4(flow) ? 20 : 0) - 20 - OPTIONS_MAX;

	return room < conn->mss ? room : ROUND_DOWN(room, conn->mss);
}

/* Sequence number after the last byte of data (not FIN) that was sent */
static uint32_t data_end(struct flow *flow)
{
	return tcp_conn(flow)->snd_nxt - tcp_has(flow, TCP_EV_TAP_FIN_SENT);
}

/* Peek without SO_PEEK_OFF: what lies before @seq goes to scratch */
static ssize_t peek_skipping(struct ctx *c, int fd, bool ended, uint32_t skip,
			     void *buf, size_t len)
{
	uint8_t *scratch = c->bufs + CTX_BUF_SIZE * (CTX_BUFS - 1);
	struct iovec iov[SKIP_IOV + 1];
	struct msghdr mh = { .msg_iov = iov };
	uint32_t left = skip;
	ssize_t got;

	for (; left && mh.msg_iovlen < SKIP_IOV; mh.msg_iovlen++) {
		uint32_t n = MIN(left, (uint32_t)CTX_BUF_SIZE);

		iov[mh.msg_iovlen] = (struct iovec){ scratch, n };
		left -= n;
	}
	if (left)
		return -EAGAIN; /* more than 8 MiB unacknowledged: wait */
	iov[mh.msg_iovlen++] = (struct iovec){ buf, len };

	got = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	if (got > (ssize_t)skip)
		return got - skip;
	return ended ? 0 : -EAGAIN; /* nothing new; the end, or not yet */
}

/**
 * sock_peek() - Copy bytes of the peer without taking them from the socket
 * @seq:	Sequence number of the first byte wanted
 *
 * Return: bytes copied, 0 at the end of the stream, or -errno
 */
static ssize_t sock_peek(struct ctx *c, struct flow *flow, uint32_t seq,
			 void *buf, size_t len)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int fd = tcp_fd(flow);
	ssize_t got;

	if (!tcp_shared(c)->peek_off[!tcp_sock_is_v4(flow)]) {
		got = peek_skipping(c, fd, conn->sock_rdhup,
				    seq - conn->sock_una, buf, len);
	} else {
		if (conn->peek_at != seq) {
			int off = (int)(seq - conn->sock_una);

			if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off,
				       sizeof(off)))
				return -errno;
			conn->peek_at = seq;
		}
		got = recv(fd, buf, len, MSG_PEEK | MSG_DONTWAIT);
		if (got < 0)
			got = -errno;
		else
			conn->peek_at += (uint32_t)got;
	}
	flow_log(&c->log, c->now, TCP_SOCK_RECV, flow, len, MAX(got, 0),
		 got < 0 ? -got : 0, 0);
	return got;
}

/**
 * tcp_consume() - Take from the socket what the guest acknowledged
 * @all:	However little; else only when it pays
 */
void tcp_consume(struct ctx *c, struct flow *flow, bool all)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t end = data_end(flow);
	uint32_t una = seq_lt(end, conn->snd_una) ? end : conn->snd_una;
	uint32_t n = una - conn->sock_una;
	bool enough = n >= CONSUME_BYTES || (una == end && n >= CONSUME_LAST);
	ssize_t got;

	if (!n)
		return;
	/* Not for long: a byte can hold 64 KiB of the socket's memory, and the
	 * peer may be waiting for room */
	if (!all && !enough && ++conn->consume_skip < CONSUME_SKIP) {
		tcp_timer_put_off(c, flow);
		return;
	}
	conn->consume_skip = 0;
	got = recv(tcp_fd(flow), NULL, n, MSG_TRUNC | MSG_DONTWAIT);
	if (got > 0)
		conn->sock_una += (uint32_t)got;
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

/* Our FIN went out, alone or with the last data */
static void fin_sent(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->snd_nxt++;
	tcp_event(c, flow, TCP_EV_TAP_FIN_SENT);
	tcp_timer_data_sent(c, flow);
}

/* All data went out and the peer has ended its side: so do we */
static void send_fin(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (tcp_has(flow, TCP_EV_TAP_FIN_SENT))
		return;
	if (tcp_send(c, flow, TCP_FLAG_FIN | TCP_FLAG_ACK, conn->snd_nxt, NULL,
		     0)) {
		tcp_timer_tap_full(c, flow);
		return;
	}
	fin_sent(c, flow);
}

/* The peer's data ended */
static void sock_ended(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->sock_ready = false;
	tcp_conn(flow)->sock_eof = true;
	tcp_event(c, flow, TCP_EV_SOCK_FIN_RCVD);
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
	bool drained = got < want && !conn->sock_urgent;
	bool end = drained && conn->sock_rdhup;
	uint8_t last = (drained ? TCP_FLAG_PSH : 0) | (end ? TCP_FLAG_FIN : 0);
	uint32_t sent;

	if (end)
		sock_ended(c, flow);
	sent = send_frames(c, flow, conn->snd_nxt, c->bufs, got, last);
	conn->snd_nxt += sent;
	if (sent == got && end)
		fin_sent(c, flow);
	else if (sent)
		tcp_timer_data_sent(c, flow);
	if (sent != got && end) { /* the rest is peeked at again */
		conn->sock_eof = false;
		conn->sock_ready = true;
	}
	return sent == got;
}

/**
 * tcp_to_tap() - Send the guest what the socket has and the window allows
 *
 * Bounded: a flow with more to send asks epoll to tell it again, which it does
 * when others had their turn, or when a guest that was full has room. The flow
 * may be closed afterwards.
 */
void tcp_to_tap(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t total = 0;

	while (conn->sock_ready) {
		uint32_t wnd = sendable(c, flow), want;
		ssize_t got;

		if (!wnd)
			break;
		if (total >= EVENT_BYTES || c->tap.blocked) {
			(void)flow_epoll_set(&c->epoll, &c->ft, flow,
					     tcp_sockside(flow), c->now);
			break;
		}
		want = MIN(wnd, PEEK_BYTES);
		got = sock_peek(c, flow, conn->snd_nxt, c->bufs, want);
		if (got <= 0) {
			if (!sock_empty(c, flow, got))
				return;
			break;
		}
		if (!send_peeked(c, flow, (uint32_t)got, want))
			break;
		total += (uint32_t)got;
	}
	if (conn->sock_eof && !conn->sock_ready)
		send_fin(c, flow);
}

/* Send a lost range again; FIN included if the range covers it
 * Return: sequence number up to which it was sent */
static uint32_t resend_range(struct ctx *c, struct flow *flow, uint32_t from,
			     uint32_t to)
{
	uint32_t end = data_end(flow);
	uint32_t stop = seq_lt(end, to) ? end : to;
	uint32_t len = MIN(stop - from, RESEND_BYTES);
	ssize_t got;

	if (from == end && to != end) /* only the FIN is left */
		return tcp_send(c, flow, TCP_FLAG_FIN | TCP_FLAG_ACK, from,
				NULL, 0) ?
			       from :
			       to;
	got = sock_peek(c, flow, from, c->bufs, len);
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
	ssize_t got = sock_peek(c, flow, conn->snd_una, &byte, 1);

	if (got != 1) {
		(void)sock_empty(c, flow, got);
		return false;
	}
	count(&c->cnt, CNT_TCP_PROBES);
	/* If the guest takes the byte, its ACK moves snd_una: count it sent */
	if (!tcp_send(c, flow, TCP_FLAG_ACK | TCP_FLAG_PSH, conn->snd_una,
		      &byte, 1) &&
	    conn->snd_nxt == conn->snd_una)
		conn->snd_nxt++;
	return true;
}
