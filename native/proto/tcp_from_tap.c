/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_from_tap.c - Segments of the guest on a connection (RFC 9293 3.10.7.4)
 *
 * A burst holds all segments of this connection from one read of the tap. Data
 * in order is gathered and given to the socket with one sendmsg(); what its
 * acknowledgements allow is sent once, at the end.
 */

#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "proto/tcp_conn.h"
#include "table/meter.h"

#define OOW_ACK_GAP (5 * NSEC_PER_MSEC) /* RFC 5961 7: no ACK storms */

/* How the peer is asked whether it is there: so many times in a row, in twice
 * the time that the guest waits before it asks, or faster (Linux' interval) */
#define KEEPALIVE_COUNT	   5
#define KEEPALIVE_INTVL	   75	 /* seconds at most */
#define KEEPALIVE_IDLE_MAX 32767 /* seconds; what the kernel takes */

/** struct gather - Data in order, not yet given to the socket
 * @iov:	Payloads, starting at rcv_nxt
 * @n:		Entries
 * @len:	Bytes
 * @frames:	Segments of the burst that carried anything
 * @flags:	Union of their flags
 */
struct gather {
	struct iovec iov[TAP_BATCH];
	unsigned n;
	uint32_t len;
	uint8_t flags;
};

/* gather_cut() - Forget what is beyond so many bytes */
static void gather_cut(struct gather *g, uint64_t len)
{
	while (g->len > len) {
		struct iovec *last = &g->iov[g->n - 1];
		uint32_t n = (uint32_t)MIN(g->len - len, last->iov_len);

		last->iov_len -= n;
		g->len -= n;
		g->n -= !last->iov_len;
	}
}

/* Give what was gathered to the socket; false when the flow was reset */
static bool deliver(struct ctx *c, struct flow *flow, struct gather *g)
{
	int rc;

	if (meter_has(flow))
		gather_cut(g, meter_left(&c->ft, flow, tcp_tapside(flow)));
	if (!g->len)
		return true;
	rc = tcp_sock_take(c, flow, g->iov, g->n, g->len);
	g->n = g->len = 0;
	if (rc)
		tcp_reset(c, flow, WHY_RST_PEER, -rc);
	return !flow->f.closed;
}

/* The guest's FIN, once everything before it is here */
static void fin_in(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (!conn->fin_seen || conn->rcv_nxt != conn->fin_seq ||
	    tcp_has(flow, TCP_EV_GUEST_FIN))
		return;
	tcp_event(c, flow, TCP_EV_GUEST_FIN);
	tcp_sock_drain(c, flow);
}

/* An unacceptable segment asks for our ACK, but not too often */
static void oow_in(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	count(&c->cnt, CNT_TCP_DROP_SEQ);
	if (c->now < conn->ack_limit)
		return;
	conn->ack_limit = c->now + OOW_ACK_GAP;
	tcp_ack_at_flush(c, flow);
}

/* The guest will hear nothing more: as if it had heard the peer's end */
static void hears_no_more(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	conn->sock_ready = false;
	conn->sock_eof = true;
	if (!tcp_has(flow, TCP_EV_PEER_FIN))
		tcp_event(c, flow, TCP_EV_PEER_FIN);
	if (!tcp_has(flow, TCP_EV_FIN_SENT))
		tcp_event(c, flow, TCP_EV_FIN_SENT);
	tcp_acked(c, flow, conn->snd_nxt);
}

/* RST: honoured inside the window only (RFC 5961 section 3 would ask back
 * unless it is exactly the next byte; our guest is clumsy, not hostile).
 *
 * A guest that has sent its FIN may forget the connection, and says so if it is
 * asked. What we acknowledged goes to the peer all the same, if there is one: on a
 * wire it would have been there long ago.
 */
static void rst_in(struct ctx *c, struct flow *flow, uint32_t off)
{
	const struct tcp_conn *conn = tcp_conn(flow);
	uint32_t wnd = conn->rcv_adv - conn->rcv_nxt;

	if (off && off >= wnd) {
		count(&c->cnt, CNT_TCP_DROP_RST);
		return;
	}
	if (tcp_has(flow, TCP_EV_GUEST_FIN) && !conn->inspected &&
	    !tcp_has(flow, TCP_EV_FIN_PASSED)) {
		hears_no_more(c, flow);
		return;
	}
	tcp_abort_sock(c, flow, 0);
	tcp_close(c, flow, WHY_RST_GUEST, 0);
}

/* SYN on a connection that stands: our ACK makes a rebooted guest reset it
 * (RFC 5961 section 4) */
static void syn_again(struct ctx *c, struct flow *flow)
{
	if (c->now < tcp_conn(flow)->ack_limit)
		return;
	count(&c->cnt, CNT_TCP_CHALLENGE_ACK);
	oow_in(c, flow);
}

/* The guest's program wants to know whether its peer is there, and we answer in
 * its place: so have the kernel ask the peer as soon as the guest asked us. If
 * nobody is there the socket fails, and the guest is reset. */
static void keepalive_in(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint64_t s = (c->now - flow->f.last_use) / NSEC_PER_SEC;
	int idle = (int)MIN(MAX(s, 1ULL), (uint64_t)KEEPALIVE_IDLE_MAX);
	int intvl = MIN(MAX(idle / KEEPALIVE_COUNT, 1), KEEPALIVE_INTVL);
	int count = KEEPALIVE_COUNT, on = 1, fd = tcp_fd(flow);

	/* It looks the same when it probes a closed window of ours */
	if (!tcp_rcvq_held(c, conn) &&
	    (!conn->keepalive || idle < conn->keepalive)) {
		conn->keepalive = (uint16_t)idle;
		(void)sys_setsockopt(fd, SOL_TCP, TCP_KEEPIDLE, &idle,
				     sizeof(idle));
		(void)sys_setsockopt(fd, SOL_TCP, TCP_KEEPINTVL, &intvl,
				     sizeof(intvl));
		(void)sys_setsockopt(fd, SOL_TCP, TCP_KEEPCNT, &count,
				     sizeof(count));
		(void)sys_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on,
				     sizeof(on));
	}
	oow_in(c, flow);
}

/* Payload beyond a gap: keep it, and tell the guest what is missing */
static void out_of_order(struct ctx *c, struct flow *flow, uint32_t seq,
			 const uint8_t *data, uint32_t len)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int rc = tcp_rcvq_out_of_order(c, conn, seq, data, len);

	count(&c->cnt, rc ? CNT_TCP_DROP_OOO : CNT_TCP_OOO);
	flow_log(&c->log, c->now, TCP_OOO, flow, seq, len, conn->rcv_nxt, 0);
	if (conn->sack_ok)
		tcp_ack_at_flush(c, flow);
	else /* it counts duplicates: one for each segment */
		(void)tcp_send(c, flow, TCP_FLAG_ACK, conn->snd_nxt, NULL, 0);
}

/**
 * data_in() - Payload of an acceptable segment
 * @off:	Its first byte, relative to the next one expected (signed:
 *		negative if part of it is old)
 *
 * Return: false when the flow was reset
 */
static bool data_in(struct ctx *c, struct flow *flow, struct gather *g,
		    const struct frame *f, int32_t off)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t next = conn->rcv_nxt + g->len;
	uint32_t room = conn->rcv_adv - next;
	uint8_t *data = f->eth + f->payload;
	uint32_t len = f->payload_len;

	if (off < 0) {
		data += -off;
		len -= (uint32_t)-off;
		off = 0;
		tcp_ack_at_flush(c, flow); /* our ACK was lost */
	}
	if (conn->fin_seen)
		room = MIN(room, conn->fin_seq - next); /* none after it */
	if ((uint32_t)off >= room) {
		if (len)
			oow_in(c, flow);
		return true;
	}
	len = MIN(len, room - (uint32_t)off);
	if (!len)
		return true;
	if (off) {
		if (!deliver(c, flow, g))
			return false;
		if (seq_lt(conn->rcv_nxt, next + (uint32_t)off))
			out_of_order(c, flow, next + (uint32_t)off, data, len);
		return true;
	}
	g->iov[g->n++] = (struct iovec){ data, len };
	g->len += len;
	tcp_ack_later(c, flow);
	if (tcp_rcvq_ranges(c, conn, &(struct seq_range){ 0 }, 1)) {
		tcp_ack_at_flush(c, flow); /* fills a gap, perhaps */
		return deliver(c, flow, g);
	}
	return true;
}

/* One segment on a connection that stands; false when the flow is gone */
static bool segment_in(struct ctx *c, struct flow *flow, struct gather *g,
		       const struct frame *f)
{
	struct tcp_conn *conn = tcp_conn(flow);
	const struct tcp_hdr *th = tcp_header(f);
	uint32_t seq = ntohl(th->seq), len = f->payload_len;
	uint32_t next = tcp_ack_no(flow) + g->len;
	bool fin = f->tcp_flags & TCP_FLAG_FIN;
	int32_t off = (int32_t)(seq - next);

	if (f->tcp_flags & TCP_FLAG_RST) {
		if (!deliver(c, flow, g))
			return false;
		rst_in(c, flow, seq - tcp_ack_no(flow));
		return !flow->f.closed;
	}
	if (f->tcp_flags & TCP_FLAG_SYN) {
		syn_again(c, flow);
		return true;
	}
	if (!(f->tcp_flags & TCP_FLAG_ACK))
		return true;
	if (off == -1 && len <= 1 && !fin) {
		keepalive_in(c, flow);
		return true;
	}
	/* Unacceptable (RFC 9293 table 6): wholly old, or beyond the window */
	if (off > (int32_t)(conn->rcv_adv - conn->rcv_nxt - g->len) ||
	    (off < 0 && off + (int64_t)len + fin <= 0)) {
		if (len + fin && off < 0)
			tcp_ack_at_flush(c, flow);
		else
			oow_in(c, flow);
		return true;
	}
	if (!tcp_ack_in(c, flow, f))
		return true;
	if (tcp_has(flow, TCP_EV_GUEST_FIN))
		return true; /* nothing may follow the FIN */
	if (fin && !conn->fin_seen &&
	    (uint32_t)(seq + len - next) <=
		    conn->rcv_adv - conn->rcv_nxt - g->len) {
		conn->fin_seen = true;
		conn->fin_seq = seq + len;
	}
	if (len)
		return data_in(c, flow, g, f, off);
	if (fin && off > 0)
		tcp_ack_at_flush(c, flow); /* something is missing */
	else if (!fin && conn->rcv_adv == conn->rcv_nxt)
		tcp_ack_later(c, flow);
	return true;
}

static bool is_syn(const struct frame *f)
{
	return (f->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST)) ==
	       TCP_FLAG_SYN;
}

/* The connection ended: only a SYN tells more than that the guest does not know
 * it yet, and only what comes after it belongs to it */
static struct frame *next_syn(struct frame *f)
{
	while (f && !is_syn(f))
		f = f->next;
	return f;
}

/* has_ended() - Does a SYN of the guest come after the end of the connection?
 *
 * As in TIME_WAIT (RFC 9293 3.10.7.4, RFC 6191): both have said that they are
 * done, every byte was sent on, and the guest uses its port again, whoever of
 * us still waits for a last acknowledgement. The flow is closed then.
 */
static bool has_ended(struct ctx *c, struct flow *flow, struct gather *g,
		      const struct frame *f)
{
	if (!is_syn(f) || !tcp_has(flow, TCP_EV_ESTABLISHED))
		return false;
	if (!deliver(c, flow, g))
		return true;
	fin_in(c, flow);
	if (!flow->f.closed && tcp_is_over(flow))
		tcp_finish(c, flow);
	return flow->f.closed;
}

/* The handler's from_tap() */
void tcp_from_tap(struct ctx *c, struct flow *flow, struct burst *b)
{
	unsigned dir = tcp_tapside(flow) == INISIDE ? 0 : 1;
	struct gather g = { .n = 0, .len = 0, .flags = 0 };
	struct tcp_conn *conn = tcp_conn(flow);
	uint64_t bytes = 0;

	tcp_timer_heard(c, flow);
	for (struct frame *f = b->head; f; f = f->next) {
		if (has_ended(c, flow, &g, f)) {
			b->rest = f;
			return;
		}
		flow_log(&c->log, c->now, TCP_FROM_TAP, flow,
			 ntohl(tcp_header(f)->seq),
			 ntohl(tcp_header(f)->ack_seq), f->tcp_flags,
			 f->payload_len);
		g.flags |= f->tcp_flags;
		bytes += f->payload_len;
		if (!tcp_has(flow, TCP_EV_ESTABLISHED)) {
			if (!tcp_handshake_in(c, flow, f)) {
				if (!flow->f.closed)
					continue;
				b->rest = next_syn(f->next);
				return;
			}
		}
		if (!segment_in(c, flow, &g, f)) {
			b->rest = next_syn(f->next);
			return;
		}
	}
	flow_touch_tcp(flow, dir, b->count, bytes, g.flags, c->now);
	if (!tcp_has(flow, TCP_EV_ESTABLISHED) || !deliver(c, flow, &g))
		return;
	fin_in(c, flow);
	if (flow->f.closed)
		return;
	tcp_resend(c, flow);
	tcp_consume(c, flow, false);
	if (meter_has(flow) && conn->rcv_adv == conn->rcv_nxt &&
	    tcp_window_reopens(c, flow))
		tcp_ack_at_flush(c, flow);
	if (conn->sock_ready ||
	    (conn->sock_eof && !tcp_has(flow, TCP_EV_FIN_SENT)))
		tcp_to_tap(c, flow);
	if (!flow->f.closed)
		tcp_finish_if_done(c, flow);
}
