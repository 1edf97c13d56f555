/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_ack.c - What an acknowledgement of the guest tells
 *
 * Cumulative ACK, window, and SACK blocks (RFC 2018), from which follows what
 * was lost on the tap. The path to the guest has one hop and no congestion, so
 * there is no congestion window: what a SACK shows to be missing is sent again
 * at once, once; when something sent later than the resend is SACKed too, the
 * resend was lost as well, and goes out again.
 */

#include "proto/tcp_conn.h"

#define DUP_ACKS 3 /* RFC 5681 section 3.2, guests without SACK */

/* Forget SACKed ranges that the cumulative ACK covers */
static void sacked_trim(struct tcp_conn *conn)
{
	unsigned keep = 0;

	for (unsigned i = 0; i < conn->n_sacked; i++) {
		struct seq_range r = conn->sacked[i];

		if (seq_le(r.end, conn->snd_una))
			continue;
		r.start = seq_max(r.start, conn->snd_una);
		conn->sacked[keep++] = r;
	}
	conn->n_sacked = (uint8_t)keep;
}

/* Enter a range, joining what it touches. When there is no room, the highest
 * range goes: what is resent needlessly is harmless. */
static void sacked_add(struct tcp_conn *conn, struct seq_range r)
{
	unsigned first = 0, last, n = conn->n_sacked;

	while (first < n && seq_lt(conn->sacked[first].end, r.start))
		first++;
	for (last = first; last < n && seq_le(conn->sacked[last].start, r.end);
	     last++) {
		if (seq_lt(conn->sacked[last].start, r.start))
			r.start = conn->sacked[last].start;
		r.end = seq_max(conn->sacked[last].end, r.end);
	}
	if (first == last && n == TCP_SACKED_MAX) {
		if (first == n)
			return;
		n--;
	}
	memmove(&conn->sacked[first + 1], &conn->sacked[last],
		(n - last) * sizeof(r));
	conn->sacked[first] = r;
	conn->n_sacked = (uint8_t)(n + 1 + first - last);
}

static void sack_in(struct tcp_conn *conn, const struct frame *f)
{
	struct seq_range r[4];
	unsigned n = tcp_parse_sack(f, r, ARRAY_SIZE(r));
	uint32_t highest;

	for (unsigned i = 0; i < n; i++) {
		/* RFC 2883: a duplicate SACK lies below; it tells nothing */
		if (seq_lt(r[i].start, conn->snd_una) ||
		    seq_le(r[i].end, r[i].start) ||
		    seq_lt(conn->snd_nxt, r[i].end))
			continue;
		sacked_add(conn, r[i]);
	}
	if (!conn->n_sacked)
		return;

	highest = conn->sacked[conn->n_sacked - 1].end;
	if (seq_lt(conn->lost_end, highest))
		conn->lost_end = highest;
	if (seq_lt(conn->snd_una, conn->retx_nxt) &&
	    seq_lt(conn->retx_mark, highest)) {
		conn->retx_nxt = conn->snd_una; /* lost again */
		conn->retx_mark = conn->snd_nxt;
	}
}

/* Guests without SACK: fast retransmit, then one step per partial ACK
 * (RFC 6582) */
static void dup_ack_in(struct tcp_conn *conn, bool advanced, bool duplicate)
{
	if (advanced) {
		bool partial = conn->dup_acks >= DUP_ACKS &&
			       seq_lt(conn->snd_una, conn->retx_mark);

		if (!partial) {
			conn->dup_acks = 0;
			return;
		}
	} else if (!duplicate || conn->dup_acks == UINT8_MAX ||
		   ++conn->dup_acks != DUP_ACKS) {
		return;
	} else {
		conn->retx_mark = conn->snd_nxt;
	}
	conn->retx_nxt = conn->snd_una;
	conn->lost_end = conn->snd_una + 65536;
	if (seq_lt(conn->snd_nxt, conn->lost_end))
		conn->lost_end = conn->snd_nxt;
}

/* RFC 9293 3.10.7.4: only a newer segment may change the window */
static bool window_in(struct tcp_conn *conn, const struct tcp_hdr *th)
{
	uint32_t seq = ntohl(th->seq);
	uint32_t wnd = (uint32_t)ntohs(th->window) << conn->snd_wscale;
	bool changed = wnd != conn->snd_wnd;
	bool opened = wnd && (!conn->snd_wnd || conn->persist);

	if (seq_lt(seq, conn->snd_wl1))
		return false;
	conn->snd_wl1 = seq;
	conn->snd_wnd = wnd;
	if (opened) { /* a probe or FIN that was not taken is lost */
		conn->persist = false;
		conn->retx_at = 0;
		conn->backoff = 0;
		conn->retx_nxt = conn->snd_una;
		conn->lost_end = conn->snd_nxt;
	}
	return changed;
}

/* tcp_acked() - The guest has everything up to @ack, or wants it no more */
void tcp_acked(struct ctx *c, struct flow *flow, uint32_t ack)
{
	struct tcp_conn *conn = tcp_conn(flow);

	conn->snd_una = ack;
	if (seq_lt(conn->retx_nxt, ack))
		conn->retx_nxt = ack;
	if (seq_lt(conn->lost_end, ack))
		conn->lost_end = ack;
	sacked_trim(conn);
	tcp_timer_acked(c, flow);
	if (tcp_has(flow, TCP_EV_FIN_SENT) && ack == conn->snd_nxt &&
	    !tcp_has(flow, TCP_EV_FIN_ACKED))
		tcp_event(c, flow, TCP_EV_FIN_ACKED);
}

/**
 * tcp_ack_in() - Work through the acknowledgement of an acceptable segment
 *
 * Does not send: tcp_from_tap() resends and sends once for the whole burst.
 *
 * Return: false if the segment acknowledges what was never sent: drop it
 */
bool tcp_ack_in(struct ctx *c, struct flow *flow, const struct frame *f)
{
	const struct tcp_hdr *th = tcp_header(f);
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t ack = ntohl(th->ack_seq);
	bool advanced, changed, duplicate;

	if (seq_lt(conn->snd_nxt, ack)) {
		tcp_ack_at_flush(c, flow); /* RFC 9293 3.10.7.4 */
		return false;
	}
	if (seq_lt(ack, conn->snd_una))
		return true; /* old: its data may be new */

	advanced = ack != conn->snd_una;
	changed = window_in(conn, th);
	if (advanced)
		tcp_acked(c, flow, ack);

	if (conn->sack_ok) {
		if (f->payload > f->l4 + sizeof(*th))
			sack_in(conn, f);
		return true;
	}
	duplicate = !changed && !f->payload_len && ack != conn->snd_nxt;
	dup_ack_in(conn, advanced, duplicate);
	return true;
}
