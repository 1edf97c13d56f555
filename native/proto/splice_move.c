/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice_move.c - Bytes from one socket to the other
 *
 * Plain recv() and send() through the scratch buffers: that beats pipes and
 * splice(2) in throughput, CPU time and latency alike. What the other socket
 * does not take at once is kept in chunks of the pool that TCP has for such
 * bytes, and nothing is read until they are gone: a direction holds one read
 * at most. With the pool nearly used up bytes are peeked at, and taken out of
 * the queue only once the other side has them: slower, and without limits.
 *
 * Sockets are level-triggered and get one read for each event, so that no flow
 * can starve another.
 */

#include <errno.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "proto/splice.h"
#include "table/meter.h"

#define SPLICE_IOV 64 /* chunks in one sendmsg(); a read is 33 at most */

void splice_event(struct ctx *c, struct flow *flow, uint32_t set,
		  uint32_t clear)
{
	uint32_t events = (flow->f.events & ~clear) | set;

	if (events == flow->f.events)
		return;
	flow_set_events(flow, (uint16_t)events);
	flow_log(&c->log, c->now, SPLICE_EVENT, flow, set, clear, events, 0);
}

/* splice_send() - Bytes into a socket
 * Return: how many it took; 0 when it is full, or its connection over */
static uint32_t splice_send(struct ctx *c, struct flow *flow, unsigned to,
			    struct iovec *iov, unsigned n, uint32_t len)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t took;
	int err = 0;

	do {
		took = sys_sendmsg(flow->f.fd[to], &mh,
				   MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (took < 0 && errno == EINTR);
	if (took < 0) {
		err = errno;
		took = 0;
	}
	budget_spend(&c->budget, WORK_CALL + work_bytes((uint64_t)took));
	if (took)
		ctx_moved(c, flow, to, iov, (uint32_t)took, 0);
	flow_log(&c->log, c->now, SPLICE_SEND, flow, to, len, took, err);
	if (took < len &&
	    (!err || err == EAGAIN || err == ENOBUFS || err == ENOMEM))
		splice_event(c, flow, SPLICE_EV(SPLICE_EV_BLOCKED, to), 0);
	else if (err)
		splice_over(c, flow, to, err);
	return (uint32_t)took;
}

/* splice_drain() - Send what is held; false if it cannot go on from here */
static bool splice_drain(struct ctx *c, struct flow *flow, unsigned from)
{
	struct splice_dir *d = &splice_conn(flow)->dir[from];
	struct iovec iov[SPLICE_IOV];
	uint32_t len, took;
	unsigned n = splice_held_iov(c, d, iov, SPLICE_IOV, &len);

	if (!n)
		return true;
	took = splice_send(c, flow, !from, iov, n, len);
	if (splice_is(flow, SPLICE_EV_OVER, !from))
		return false;
	splice_drop(c, d, took);
	flow_touch(flow, from, 1, took, c->now);
	count_n(&c->cnt, CNT_SPLICE_BYTES, took);
	return took == len;
}

/* splice_read_failed() - There was nothing to read; what does it mean? */
static void splice_read_failed(struct ctx *c, struct flow *flow, unsigned from,
			       ssize_t n, int err)
{
	struct splice_conn *conn = splice_conn(flow);
	struct splice_dir *d = &conn->dir[from];
	bool over = splice_is(flow, SPLICE_EV_OVER, from);

	if (n && !over && (err == EAGAIN || err == EINTR))
		return;
	/* After a reset that send() told us of, recv() knows of none, and
	 * says 0. EPIPE means that the end had come before it, in order. */
	d->eof = !n && (!d->err || d->err == EPIPE);
	conn->abort |= !d->eof;
	ctx_said(c, flow, from, d->eof ? CAPTURE_FIN_CAME : CAPTURE_RST_CAME);
	splice_event(c, flow, SPLICE_EV(SPLICE_EV_IN_DONE, from), 0);
	if (n && !over)
		splice_over(c, flow, from, err);
}

/* splice_adapt() - Read more at a time while everything is taken */
static void splice_adapt(struct splice_dir *d, uint32_t got, uint32_t took)
{
	if (took < got)
		d->want = MAX(d->want / 2, (uint32_t)SPLICE_READ_MIN);
	else if (got == d->want)
		d->want = MIN(d->want * 2, (uint32_t)SPLICE_READ_MAX);
}

/* splice_take_out() - Bytes that were peeked at are with the other side: TCP only
 * counts them, a UNIX socket copies them, and stops where descriptors came along */
static void splice_take_out(struct ctx *c, struct flow *flow, unsigned from,
			    uint32_t len)
{
	bool local = splice_conn(flow)->local[from];
	ssize_t n;

	do {
		n = sys_recv(flow->f.fd[from], local ? c->bufs : NULL, len,
			     MSG_DONTWAIT | (local ? 0 : MSG_TRUNC));
		len -= (uint32_t)MAX(n, 0);
	} while (n > 0 && len);
}

/* splice_allowed() - How much of @want limits let pass; 0: wait until they do */
static uint32_t splice_allowed(struct ctx *c, struct flow *flow, unsigned from,
			       uint32_t want)
{
	want = (uint32_t)MIN(want, meter_left(&c->ft, flow, from));
	want = meter_allow(&c->ft, flow, from, want, c->now);
	if (want) {
		splice_event(c, flow, 0, SPLICE_EV(SPLICE_EV_WAITS, from));
	} else {
		splice_event(c, flow, SPLICE_EV(SPLICE_EV_WAITS, from), 0);
		meter_wait(&c->ft, flow, from, c->now);
	}
	return want;
}

/* splice_pass() - One read, one write; true if there may be more at once */
static bool splice_pass(struct ctx *c, struct flow *flow, unsigned from)
{
	struct splice_dir *d = &splice_conn(flow)->dir[from];
	uint32_t got, took, want = d->want;
	int fd = flow->f.fd[from];
	struct iovec iov;
	ssize_t n;
	bool peek;

	if (meter_has(flow)) {
		want = splice_allowed(c, flow, from, want);
		if (!want)
			return false;
	}
	peek = want > splice_room(c);

	n = sys_recv(fd, c->bufs, want, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
	budget_spend(&c->budget, WORK_CALL + work_bytes((uint64_t)MAX(n, 0)));
	if (n <= 0) {
		splice_read_failed(c, flow, from, n, errno);
		return false;
	}
	got = (uint32_t)n;
	iov = (struct iovec){ c->bufs, got };
	took = splice_send(c, flow, !from, &iov, 1, got);
	if (meter_has(flow))
		meter_move(&c->ft, flow, from, peek ? took : got, c->now);
	flow_touch(flow, from, 1, took, c->now);
	count_n(&c->cnt, CNT_SPLICE_BYTES, took);
	if (splice_is(flow, SPLICE_EV_OVER, !from))
		return false;
	if (peek && took)
		splice_take_out(c, flow, from, took);
	else if (!peek && took < got)
		splice_hold(c, d, c->bufs + took, got - took);
	splice_adapt(d, got, took);
	return took == got;
}

void splice_over(struct ctx *c, struct flow *flow, unsigned sidei, int err)
{
	struct splice_conn *conn = splice_conn(flow);

	if (splice_is(flow, SPLICE_EV_OVER, sidei))
		return;
	if (err && splice_is(flow, SPLICE_EV_IN_DONE, sidei))
		ctx_said(c, flow, sidei, CAPTURE_RST_CAME);
	conn->dir[sidei].err = err;
	if (err)
		conn->err = err;
	/* Had it been given all, and told so, it could end in order */
	if (!splice_is(flow, SPLICE_EV_OUT_DONE, sidei))
		conn->abort = true;
	splice_release(c, flow, !sidei);
	splice_event(c, flow,
		     SPLICE_EV(SPLICE_EV_OVER, sidei) |
			     SPLICE_EV(SPLICE_EV_OUT_DONE, sidei) |
			     SPLICE_EV(SPLICE_EV_IN_DONE, !sidei),
		     SPLICE_EV(SPLICE_EV_BLOCKED, sidei));
	splice_move(c, flow, sidei);
}

void splice_move(struct ctx *c, struct flow *flow, unsigned from)
{
	do {
		if (!splice_drain(c, flow, from))
			return;
		if (splice_is(flow, SPLICE_EV_IN_DONE, from))
			return;
		if (!splice_pass(c, flow, from) ||
		    !(splice_is(flow, SPLICE_EV_OVER, from) ||
		      splice_is(flow, SPLICE_EV_LEFT, from)))
			return;
	} while (!budget_is_spent(&c->budget));
	/* Its socket has left epoll, which will not tell of the rest */
	ready_add(&c->ft, flow, from);
}
