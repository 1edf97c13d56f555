/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_window.c - How much the guest may send, summed over all flows
 *
 * A window is a promise: bytes sent inside it are never dropped. Two places
 * must be able to hold them: the tap's queue, while we are busy elsewhere, and
 * our receive queues, while sockets are full. So the sum of what is promised
 * and what is held never exceeds a budget (frames of the tap's queue times the
 * guest's segment size, at most TCP_BUDGET_MAX). Each flow may take a quarter
 * of what the others leave: n busy flows settle at budget / (n + 3) each. A
 * flow that finds nothing left still gets one segment, so that it moves on;
 * the queue has more frames than we expect flows, which keeps the sum true.
 * A window grows while it is used up, and never shrinks (RFC 9293 3.8.6).
 *
 * Where a limit of bytes a second is on the flow (table/meter.h), it pays for what
 * the window grows by, and gets back what the guest did not use in the end. A
 * guest that has used its window waits until there is enough for another.
 */

#include "proto/tcp_conn.h"
#include "table/meter.h"

#define TCP_FIRST_SHARE 64 /* a new flow gets 1/64 of what is left */
#define TCP_SHARE	4  /* a busy flow a quarter */

static uint32_t min_window(const struct tcp_conn *conn, uint32_t held)
{
	return held ? 0 : conn->mss;
}

/* What the window of a flow could be now, bytes from rcv_nxt */
static uint32_t window_wanted(const struct ctx *c, const struct tcp_conn *conn)
{
	uint32_t held = tcp_rcvq_held(c, conn);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt;
	uint64_t others = tcp_shared(c)->promised - own + tcp_shared(c)->held;
	uint64_t left = tcp_shared(c)->budget > others ?
				tcp_shared(c)->budget - others :
				0;
	unsigned share = conn->rcv_nxt == conn->irs + 1 ? TCP_FIRST_SHARE :
							  TCP_SHARE;
	uint32_t wnd = (uint32_t)MIN(left / share, conn->wnd_target);

	wnd = MAX(wnd, min_window(conn, held));
	wnd = MIN(wnd, TCP_WND_MAX - MIN(held, TCP_WND_MAX));
	if (!conn->rcv_wscale)
		wnd = MIN(wnd, 65535U);
	/* RFC 9293 3.8.6.2.2: no silly windows while bytes are held back */
	if (held && wnd < own + conn->mss)
		wnd = own;
	return MAX(wnd, own);
}

/* metered() - What limits of the flow leave of a window */
static uint32_t metered(struct ctx *c, struct flow *flow, uint32_t wnd)
{
	const struct tcp_conn *conn = tcp_conn(flow);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt;
	unsigned from = tcp_tapside(flow);

	if (!meter_has(flow))
		return wnd;
	wnd = MAX(MIN(wnd, meter_most(&c->ft, flow, from)), own);
	return own + meter_allow(&c->ft, flow, from, wnd - own, c->now);
}

/* is_short() - Does the guest need more soon, which is worth to be told? */
static bool is_short(const struct ctx *c, const struct flow *flow, uint32_t own)
{
	return own < meter_most(&c->ft, flow, tcp_tapside(flow)) / 2;
}

/* pay() - The window grew, by as much as the limits gave, of @wanted */
static void pay(struct ctx *c, struct flow *flow, uint32_t own, uint32_t wnd,
		uint32_t wanted)
{
	unsigned from = tcp_tapside(flow);

	meter_take(&c->ft, flow, from, wnd - own);
	tcp_conn(flow)->paid += wnd - own;
	if (wnd < wanted && is_short(c, flow, wnd) &&
	    tcp_has(flow, TCP_EV_ESTABLISHED))
		meter_wait(&c->ft, flow, from, c->now);
}

/**
 * tcp_window_update() - Renew the promise to the guest
 * @syn:	The window is for a SYN, where it is never scaled
 *
 * Return: the window field, host order
 */
uint16_t tcp_window_update(struct ctx *c, struct flow *flow, bool syn)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt;
	uint32_t wanted = window_wanted(c, conn);
	uint32_t wnd = metered(c, flow, wanted);
	bool exact = tcp_rcvq_held(c, conn) || meter_has(flow);
	unsigned scale = syn ? 0 : conn->rcv_wscale;
	uint32_t unit = (1U << scale) - 1;
	uint32_t field;

	/* Rounding up promises more, which small segments could ask for again
	 * and again: not while bytes are held (RFC 7323 2.4 allows for it), or
	 * counted */
	field = (exact ? wnd : wnd + unit) >> scale;
	field = MIN(field, 65535U);
	wnd = MAX(field << scale, own);
	tcp_shared(c)->promised += wnd - own;
	conn->rcv_adv = conn->rcv_nxt + wnd;
	if (meter_has(flow))
		pay(c, flow, own, wnd, wanted);
	flow_log(&c->log, c->now, TCP_WINDOW, flow, wnd,
		 tcp_shared(c)->promised, tcp_rcvq_held(c, conn), 0);
	return (uint16_t)field;
}

/* tcp_window_opened() - Did the window open enough to tell the guest at once?
 * After the socket took bytes that we held back. */
bool tcp_window_opened(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt;
	uint32_t gain = metered(c, flow, window_wanted(c, conn)) - own;

	return gain >= 2U * conn->mss && gain >= own / 2;
}

/* tcp_window_reopens() - Do limits let the guest go on, which it has to be told
 * then? If not, it waits for them */
bool tcp_window_reopens(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t own = conn->rcv_adv - conn->rcv_nxt;
	uint32_t wanted = window_wanted(c, conn);
	uint32_t unit = 1U << conn->rcv_wscale;

	if (flow->f.waits[tcp_tapside(flow)] || !is_short(c, flow, own) ||
	    tcp_has(flow, TCP_EV_GUEST_FIN))
		return false;
	if (metered(c, flow, wanted) >= own + unit)
		return true;
	if (wanted >= own + unit)
		meter_wait(&c->ft, flow, tcp_tapside(flow), c->now);
	return false;
}

/* rcv_nxt moves on by @n bytes of the window */
static void received(struct ctx *c, struct tcp_conn *conn, uint32_t n)
{
	conn->rcv_nxt += n;
	tcp_shared(c)->promised -= n;
	if (seq_lt(conn->rcv_nxt, conn->wnd_grow_at))
		return;
	if (tcp_rcvq_held(c, conn) <= conn->wnd_target / 2)
		conn->wnd_target = MIN(2 * conn->wnd_target, TCP_WND_MAX);
	conn->wnd_grow_at = conn->rcv_nxt + conn->wnd_target;
}

/**
 * tcp_window_join() - rcv_nxt moves on, and over what had come out of order
 * @n:		Bytes of the window
 * @most:	Bytes at most, with what follows them
 */
void tcp_window_join(struct ctx *c, struct tcp_conn *conn, uint32_t n,
		     uint64_t most)
{
	received(c, conn, n);
	n = tcp_rcvq_join(c, conn, most - n);
	if (n)
		received(c, conn, n);
}

/* tcp_window_moved() - Bytes of the guest came, of a flow that has limits: those
 * that were promised while it had others, or none, are paid for now */
void tcp_window_moved(struct ctx *c, struct flow *flow, uint32_t n)
{
	struct tcp_conn *conn = tcp_conn(flow);
	unsigned from = tcp_tapside(flow);
	uint32_t paid = MIN(conn->paid, n);

	conn->paid -= paid;
	if (n > paid)
		meter_take(&c->ft, flow, from, n - paid);
	meter_count(&c->ft, flow, from, n, c->now);
}

/* tcp_window_unpay() - The handler's unruled(): its limits get back what they gave
 * for bytes that did not come */
void tcp_window_unpay(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (meter_has(flow))
		meter_take(&c->ft, flow, tcp_tapside(flow),
			   -(int64_t)conn->paid);
	conn->paid = 0;
}

/* tcp_window_release() - The flow ends: nothing is promised any more */
void tcp_window_release(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	tcp_window_unpay(c, flow);
	tcp_shared(c)->promised -= conn->rcv_adv - conn->rcv_nxt;
	conn->rcv_adv = conn->rcv_nxt;
}
