/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_handshake.c - Segments of the guest before the connection stands
 *
 * The guest opens:  its SYN made the flow and is replayed here; SYN,ACK goes
 *	out when the peer accepted (tcp_connecting()), or has already; the
 *	guest's ACK follows.
 * The peer opens:   our SYN went out in open(); the guest's SYN,ACK follows,
 *	or its own SYN (simultaneous open, RFC 9293 section 3.5).
 */

#include "proto/tcp_conn.h"

/* Initial sequence number, RFC 6528: F(addresses, ports, secret) + clock that
 * ticks every 64 ns */
static uint32_t initial_seq(const struct ctx *c, const struct flow *flow)
{
	const struct flowside *side = &flow->f.side[tcp_tapside(flow)];

	return (uint32_t)(siphash(&tcp_shared(c)->isn_key, side,
				  sizeof(*side)) +
			  c->now / 64);
}

/* tcp_handshake_start() - Initial state of both directions */
void tcp_handshake_start(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t iss = initial_seq(c, flow);

	memset(conn, 0, sizeof(*conn));
	conn->iss = conn->snd_una = conn->snd_nxt = iss;
	conn->sock_una = conn->peek_at = iss + 1;
	conn->lost_end = conn->retx_nxt = conn->retx_mark = iss;
	conn->wnd_target = TCP_WND_FIRST;
	conn->mss = TCP_GUEST_MSS;
	conn->rcv_wscale = TCP_WSCALE;
	conn->rcvq = POOL_NONE;
	tcp_timer_started(c, flow);
}

/* What the guest's SYN says: options, window, where its bytes start */
static void syn_in(struct ctx *c, struct flow *flow, const struct frame *f)
{
	uint32_t hdrs = tcp_is_v4(flow) ? 40 : 60;
	const struct tcp_hdr *th = tcp_header(f);
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt; /* our SYN's promise */
	struct tcp_syn_options o;

	tcp_parse_syn(f, &o);
	conn->mss = (uint16_t)MIN(MAX(o.mss, TCP_MSS_MIN),
				  MIN(c->tap.mtu, 65535U) - hdrs);
	conn->sack_ok = o.sack_ok;
	conn->snd_wscale = o.wscale;
	conn->rcv_wscale = o.has_wscale ? TCP_WSCALE : 0;
	conn->irs = ntohl(th->seq);
	conn->rcv_nxt = conn->irs + 1;
	conn->rcv_adv = conn->rcv_nxt + own;
	conn->rcv_acked = conn->rcv_nxt;
	conn->wnd_grow_at = conn->rcv_nxt + conn->wnd_target;
	conn->snd_wl1 = conn->irs;
	conn->snd_wnd = ntohs(th->window); /* never scaled in a SYN */
	conn->syn_rcvd = true;
}

/* Both SYNs are acknowledged */
static void established(struct ctx *c, struct flow *flow, const struct frame *f)
{
	const struct tcp_hdr *th = tcp_header(f);
	struct tcp_conn *conn = tcp_conn(flow);

	conn->snd_una = conn->snd_nxt = conn->iss + 1;
	conn->lost_end = conn->retx_nxt = conn->retx_mark = conn->snd_una;
	conn->snd_wl1 = ntohl(th->seq);
	conn->snd_wnd = ntohs(th->window);
	if (!(f->tcp_flags & TCP_FLAG_SYN))
		conn->snd_wnd <<= conn->snd_wscale;
	tcp_event(c, flow, TCP_EV_ESTABLISHED);
}

/* ask_again() - Nobody listens where the verdict sent a connection: is there
 * another verdict? The client is accepted, and hears nothing of it meanwhile */
static bool ask_again(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (tcp_tapside(flow) == INISIDE || conn->syn_rcvd || conn->again)
		return false;
	flow_epoll_del(&c->epoll, flow, INISIDE);
	if (!stage_refused(&c->stage, flow, flow->f.fd[INISIDE], c->now))
		return false;
	(void)flow_take_fd(&c->ft, flow, INISIDE);
	return true;
}

/* The guest gives up before the connection stands, or refuses ours */
static void reset_in(struct ctx *c, struct flow *flow, const struct frame *f)
{
	const struct tcp_hdr *th = tcp_header(f);
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t off = ntohl(th->seq) - conn->rcv_nxt;
	bool valid;

	if (conn->syn_rcvd)
		valid = off <= conn->rcv_adv - conn->rcv_nxt;
	else
		valid = (f->tcp_flags & TCP_FLAG_ACK) &&
			ntohl(th->ack_seq) == conn->iss + 1;
	if (!valid) {
		count(&c->cnt, CNT_TCP_DROP_RST);
		return;
	}
	if (!ask_again(c, flow))
		tcp_abort_sock(c, flow, 0);
	tcp_close(c, flow, WHY_RST_GUEST, 0);
}

/* The guest opened, its SYN is here (or here again) */
static void guest_syn(struct ctx *c, struct flow *flow, const struct frame *f)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (!tcp_has(flow, TCP_EV_SYN_SENT)) {
		syn_in(c, flow, f); /* the first, or a new attempt */
		if (!tcp_has(flow, TCP_EV_ACCEPTED))
			return;
		(void)tcp_send_syn(c, flow);
		tcp_event(c, flow, TCP_EV_SYN_SENT);
	} else if (ntohl(tcp_header(f)->seq) == conn->irs) {
		conn->rtt_start = TCP_RTT_VOID; /* ours was lost: Karn */
		(void)tcp_send_syn(c, flow);
	} else {
		tcp_ack_at_flush(c, flow);
	}
}

/* The peer opened; the guest answers our SYN with its own */
static void guest_syn_back(struct ctx *c, struct flow *flow,
			   const struct frame *f)
{
	syn_in(c, flow, f);
	if (f->tcp_flags & TCP_FLAG_ACK) {
		established(c, flow, f);
		tcp_ack_at_flush(c, flow);
	} else { /* simultaneous: SYN,ACK now */
		(void)tcp_send_syn(c, flow);
	}
}

/* An answer to something that we never sent, RFC 9293 3.10.7.3: the guest still
 * has an old connection with these ports. Our RST ends it, and it would take
 * our SYN then: so once it goes out again at once */
static void stale_answer(struct ctx *c, struct flow *flow,
			 const struct frame *f)
{
	struct tcp_conn *conn = tcp_conn(flow);

	tcp_send_rst(c, &f->key, ntohl(tcp_header(f)->ack_seq), 0, 0);
	if (conn->syn_rcvd || conn->syn_again)
		return;
	conn->syn_again = true;
	conn->rtt_start = TCP_RTT_VOID;
	(void)tcp_send_syn(c, flow);
}

/**
 * tcp_handshake_in() - A segment while the connection does not stand yet
 *
 * Return: true if it stands now and the segment's data is to be looked at
 */
bool tcp_handshake_in(struct ctx *c, struct flow *flow, const struct frame *f)
{
	const struct tcp_hdr *th = tcp_header(f);
	struct tcp_conn *conn = tcp_conn(flow);
	bool sent = tcp_has(flow, TCP_EV_SYN_SENT);
	uint8_t flags = f->tcp_flags;

	if ((flags & TCP_FLAG_ACK) && sent &&
	    ntohl(th->ack_seq) != conn->iss + 1) {
		if (!(flags & TCP_FLAG_RST))
			stale_answer(c, flow, f);
		return false;
	}
	if (flags & TCP_FLAG_RST) {
		reset_in(c, flow, f);
		return false;
	}
	if (flags & TCP_FLAG_SYN) {
		if (tcp_tapside(flow) == TGTSIDE && !conn->syn_rcvd) {
			guest_syn_back(c, flow, f);
			return false;
		}
		if (!(flags & TCP_FLAG_ACK)) {
			guest_syn(c, flow, f);
			return false;
		}
	}
	if (!(flags & TCP_FLAG_ACK) || !sent || !conn->syn_rcvd)
		return false;
	if (ntohl(th->seq) - conn->rcv_nxt > conn->rcv_adv - conn->rcv_nxt) {
		if (!(flags & TCP_FLAG_SYN)) {
			tcp_ack_at_flush(c, flow);
			return false;
		}
	}
	established(c, flow, f);
	if (flags & TCP_FLAG_SYN) { /* ends a simultaneous open */
		tcp_ack_at_flush(c, flow);
		return false;
	}
	return true;
}
