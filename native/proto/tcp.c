/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp.c - TCP over the tap, as the rest of the program sees it
 *
 * Events of the socket, and what all connections share. What a connection goes
 * through is told in tcp_steps.def; the table of files is in tcp_conn.h.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/room.h"
#include "base/sys.h"
#include "proto/tcp_conn.h"

#define CHUNKS	       16384 /* 512 MiB of addresses, touched on demand */
#define TCP_BUDGET_MAX (64ULL << 20) /* bytes promised or held, in all */

/* Both directions, edge-triggered: mostly one epoll_ctl() in a connection's
 * life. EPOLLPRI: urgent data */
static uint32_t tcp_interest(const struct flow *flow, unsigned sidei)
{
	(void)flow;
	(void)sidei;
	return EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
}

/* EPOLLERR: reset the connection if there is an error indeed */
static void sock_failed(struct ctx *c, struct flow *flow)
{
	int err = tcp_sock_error(flow);

	if (err)
		tcp_reset(c, flow, WHY_RST_PEER, err);
}

/* is_unfinished() - Will it be called for again, to go on with the socket? */
static bool is_unfinished(const struct flow *flow)
{
	return flow->f.ready >> tcp_sockside(flow) & 1 ||
	       flow->f.waits[tcp_sockside(flow)];
}

static void tcp_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
			  uint32_t events)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (sidei == tcp_tapside(flow)) { /* it waited for a limit */
		if (tcp_window_reopens(c, flow))
			tcp_ack_at_flush(c, flow);
		return;
	}
	if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) && !conn->sock_eof)
		conn->sock_ready = true;
	/* A reset hangs up too, but it is no end of the stream */
	if ((events & (EPOLLRDHUP | EPOLLHUP)) && !(events & EPOLLERR))
		conn->sock_rdhup = true;
	if (events & EPOLLPRI)
		conn->peeks_short = true;

	if (!tcp_has(flow, TCP_EV_ACCEPTED)) {
		tcp_connecting(c, flow, events);
		return;
	}
	if (conn->joining) {
		tcp_joining(c, flow, events);
		if (flow->f.closed || conn->joining)
			return;
	}
	/* What the peer sent before it reset is still in the socket, and recv()
	 * returns it before the error: the guest gets it first */
	if (events & EPOLLERR) {
		if (tcp_has(flow, TCP_EV_ESTABLISHED))
			tcp_to_tap(c, flow);
		if (!flow->f.closed && !is_unfinished(flow))
			sock_failed(c, flow);
		/* Epoll does not tell of the error again: the socket does, when
		 * it is asked for more than it has */
		conn->peeks_short = true;
		if (flow->f.closed || is_unfinished(flow))
			return;
	}
	if (!tcp_has(flow, TCP_EV_ESTABLISHED))
		return; /* tcp_from_tap() comes back to it */
	if (events & EPOLLOUT)
		tcp_sock_drain(c, flow);
	if (!flow->f.closed && conn->sock_ready)
		tcp_to_tap(c, flow);
}

/* tcp_close_asked() - A connection whose ends are not asked */
static void tcp_close_asked(struct ctx *c, struct flow *flow, enum flow_why why)
{
	tcp_reset(c, flow, why, 0);
}

/* What is left of a closed flow: its place in the list of those that owe an
 * acknowledgement, and everything else if the datapath is being torn down */
static bool tcp_defer(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	tcp_release(c, flow);
	for (uint32_t i = 0; conn->ack_queued && i < tcp_shared(c)->ack_count;
	     i++) {
		if (tcp_shared(c)->ack_list[i].flow != flow_index(&c->ft, flow))
			continue;
		tcp_shared(c)->ack_list[i] =
			tcp_shared(c)->ack_list[--tcp_shared(c)->ack_count];
		conn->ack_queued = false;
	}
	return true;
}

static bool has_peek_off(int af)
{
	int fd = sys_socket(af, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int zero = 0, rc;

	if (fd < 0)
		return false;
	rc = sys_setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero));
	(void)close(fd);
	return !rc;
}

static int tcp_init(struct ctx *c, const uint8_t secret[16])
{
	struct tcp_shared *s = sys_calloc(1, sizeof(*s));
	size_t len = 2 * c->ft.max * sizeof(*s->ack_list);

	if (!s)
		return -ENOMEM;
	c->shared[FLOW_TCP] = s;
	memcpy(&s->isn_key, secret, sizeof(s->isn_key));
	s->budget = MIN((uint64_t)c->tap.queue_frames * (c->tap.mtu - 40),
			TCP_BUDGET_MAX);
	s->peek_off[0] = has_peek_off(AF_INET);
	s->peek_off[1] = has_peek_off(AF_INET6);
	s->spare_fd = tcp_spare_take(c);
	s->ack_list = room_reserve(len);
	if (s->ack_list == MAP_FAILED) {
		s->ack_list = NULL;
		return -ENOMEM;
	}
	s->stalled = s->ack_list + c->ft.max;
	return pool_init(&s->chunks, TCP_CHUNK, CHUNKS);
}

static void tcp_fini(struct ctx *c)
{
	struct tcp_shared *s = tcp_shared(c);

	if (s->spare_fd >= 0)
		(void)close(s->spare_fd);
	pool_free(&s->chunks);
	if (s->ack_list)
		munmap(s->ack_list, 2 * c->ft.max * sizeof(*s->ack_list));
	free(s);
	c->shared[FLOW_TCP] = NULL;
}

struct pool *tcp_chunks(const struct ctx *c)
{
	return &tcp_shared(c)->chunks;
}

/* tcp_stray() - Only a SYN starts a connection; anything else that belongs to
 * none is answered with RST, but for RST itself (RFC 9293 3.10.7.1) */
static bool tcp_stray(struct ctx *c, const struct frame *f)
{
	const uint8_t mask = TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST |
			     TCP_FLAG_FIN;
	const struct tcp_hdr *th = tcp_header(f);
	uint32_t len = f->payload_len + !!(f->tcp_flags & TCP_FLAG_SYN) +
		       !!(f->tcp_flags & TCP_FLAG_FIN);

	if ((f->tcp_flags & mask) == TCP_FLAG_SYN)
		return false;
	if (f->tcp_flags & TCP_FLAG_RST)
		return true;
	if (f->tcp_flags & TCP_FLAG_ACK)
		tcp_send_rst(c, &f->key, ntohl(th->ack_seq), 0, 0);
	else
		tcp_send_rst(c, &f->key, 0, ntohl(th->seq) + len, TCP_FLAG_ACK);
	return true;
}

const struct handler tcp_handler = {
	.ipproto = IPPROTO_TCP,
	.repeats = true,
	.init = tcp_init,
	.fini = tcp_fini,
	.stray = tcp_stray,
	.open = tcp_open,
	.reject = tcp_reject,
	.interest = tcp_interest,
	.from_tap = tcp_from_tap,
	.from_sock = tcp_from_sock,
	.timer = tcp_timeout,
	.listen = tcp_listen,
	.flush = tcp_flush,
	.close = tcp_close_asked,
	.adopt = tcp_adopt,
	.said = tcp_said,
	.connect = tcp_connect,
	.yield = tcp_yield,
	.unruled = tcp_window_unpay,
	.defer = tcp_defer,
};
