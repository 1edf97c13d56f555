/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp.c - TCP over the tap: how connections begin and end
 *
 * DOC: what a connection goes through, as events (TCP_EV_*), never unlearned:
 *
 *   guest opens				peer opens
 *   SYN -> miss -> verdict -> open()		accept -> miss -> verdict
 *   SOCK_CONNECTING				-> open(): SOCK_ACCEPTED,
 *   SOCK_ACCEPTED: peer took it,		   TAP_SYN_SENT
 *     SYN,ACK goes out: TAP_SYN_SENT		guest's SYN,ACK: ESTABLISHED
 *   guest's ACK: ESTABLISHED
 *
 *   guest's FIN: TAP_FIN_RCVD, and once the socket has every byte
 *     shutdown(): SOCK_FIN_SENT
 *   peer's FIN: SOCK_FIN_RCVD, and once the guest was sent every byte
 *     our FIN: TAP_FIN_SENT, acknowledged: TAP_FIN_ACKED
 *   SOCK_FIN_SENT and TAP_FIN_ACKED: done, in whichever order they came
 *
 * No TIME_WAIT is kept: whoever closed first keeps its own, the guest's kernel
 * or the host's. The table of files is in tcp_conn.h.
 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/dgram.h"
#include "proto/icmp_error.h"
#include "proto/tcp_conn.h"

#define CHUNKS	       16384 /* 512 MiB of addresses, touched on demand */
#define TCP_BUDGET_MAX (64ULL << 20) /* bytes promised or held, in all */
#define ACCEPT_BATCH   64	     /* connections of one event */

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* tcp_event() - Record that something happened to a connection */
void tcp_event(struct ctx *c, struct flow *flow, enum tcp_event event)
{
	flow_set_events(flow, flow->f.events | event);
	flow_log(&c->log, c->now, TCP_EVENT, flow, event, flow->f.events, 0, 0);
}

/* tcp_abort_sock() - The peer is to see a RST when the socket is closed */
void tcp_abort_sock(struct flow *flow)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	if (tcp_fd(flow) >= 0)
		(void)setsockopt(tcp_fd(flow), SOL_SOCKET, SO_LINGER, &l,
				 sizeof(l));
}

/* Give back what a connection holds; more than once does no harm */
static void release(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int fd = flow_take_fd(flow, tcp_sockside(flow));

	tcp_rcvq_release(c, conn);
	tcp_window_release(c, conn);
	if (fd >= 0)
		ctx_close_later(c, fd);
}

/* tcp_close() - Nothing is left to do: give everything back at once, so that
 * the peer hears of it now and not at the next deferred scan */
void tcp_close(struct ctx *c, struct flow *flow, enum flow_why why, int err)
{
	tcp_event(c, flow, TCP_EV_CLOSED);
	release(c, flow);
	flow_mark_closed(&c->ft, flow, why, err, c->now);
}

/* tcp_reset() - End a connection toward both sides */
void tcp_reset(struct ctx *c, struct flow *flow, enum flow_why why, int err)
{
	const struct flowside *side = &flow->f.side[tcp_tapside(flow)];
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->syn_rcvd || tcp_has(flow, TCP_EV_TAP_SYN_SENT))
		tcp_send_rst(c, side, conn->snd_nxt, tcp_ack_no(flow),
			     conn->syn_rcvd ? TCP_FLAG_ACK : 0);
	tcp_abort_sock(flow);
	tcp_close(c, flow, why, err);
}

/* tcp_close_asked() - A connection whose ends are not asked */
static void tcp_close_asked(struct ctx *c, struct flow *flow, enum flow_why why)
{
	tcp_reset(c, flow, why, 0);
}

/* tcp_finish_if_done() - Both directions ended in order: forget the flow */
void tcp_finish_if_done(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (flow->f.closed ||
	    !tcp_has(flow, TCP_EV_SOCK_FIN_SENT | TCP_EV_TAP_FIN_ACKED))
		return;
	if (conn->ack_now || conn->rcv_acked != tcp_ack_no(flow))
		(void)tcp_send(c, flow, TCP_FLAG_ACK, conn->snd_nxt, NULL, 0);
	tcp_consume(c, flow, true); /* or close() would send a RST */
	tcp_close(c, flow, WHY_DONE, 0);
}

static void set_options(struct ctx *c, const struct flow *flow, int fd)
{
	int on = 1, zero = 0;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* An urgent byte that is not in line is skipped by peeks, but counted
	 * by sequence numbers: what follows would be sent twice */
	(void)setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
	if (tcp_shared(c)->peek_off[!tcp_sock_is_v4(flow)])
		(void)setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero,
				 sizeof(zero));
}

/* parked_syn() - The segment that made a miss; false: not from the guest */
static bool parked_syn(struct ctx *c, struct miss *m, struct frame *f)
{
	struct stage_item *item;
	uint32_t pos = 0;

	item = stage_next(&c->stage, m, &pos);
	return m->pif == PIF_TAP && item &&
	       flow_extract(f, stage_item_data(item), item->len, &item->vh,
			    &c->cnt) == EXTRACT_FLOW;
}

/* Source address and device of an outbound socket, as the verdict says */
static int bind_outbound(const struct ctx *c, int fd,
			 const struct flowside *side, bool v4)
{
	const char *dev = c->outbound_if[!v4];
	union sockaddr_inany sa;
	socklen_t len;
	int on = 1;

	if (*dev && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, dev,
			       (socklen_t)strlen(dev) + 1))
		return -errno;
	if (inany_is_any(&side->oaddr))
		return 0;
	if (!side->oport)
		(void)setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on,
				 sizeof(on));
	len = inany_to_sa(&sa, &side->oaddr, side->oport, c->scope_id);
	return bind(fd, &sa.sa, len) ? -errno : 0;
}

/* The guest opens: connect to where the verdict says */
static int open_outbound(struct ctx *c, struct flow *flow, struct miss *m)
{
	const struct flowside *side = &flow->f.side[TGTSIDE];
	bool v4 = inany_is_v4(&side->eaddr);
	union sockaddr_inany sa;
	struct frame syn;
	socklen_t len;
	int fd, rc;

	fd = socket(v4 ? AF_INET : AF_INET6,
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0) {
		count(&c->cnt, CNT_SOCK_EMFILE);
		return -errno;
	}
	set_options(c, flow, fd);
	/* We are no hop: what the guest's hosts and routers see is its own TTL,
	 * and who says "time exceeded" says it to the guest (traceroute -T) */
	if (parked_syn(c, m, &syn) && syn.ttl != IPDEFTTL)
		dgram_set_ttl(fd, v4, syn.ttl);
	icmp_error_keep(fd, v4, true);
	rc = bind_outbound(c, fd, side, v4);
	if (rc)
		goto err;
	len = inany_to_sa(&sa, &side->eaddr, side->eport, c->scope_id);
	if (connect(fd, &sa.sa, len) && errno != EINPROGRESS) {
		rc = -errno;
		goto err;
	}
	tcp_event(c, flow, TCP_EV_SOCK_CONNECTING);
	rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, fd, c->now);
	if (!rc)
		return 0;
err:
	(void)close(fd);
	return rc;
}

/* The peer opened: a SYN for the guest */
static int open_inbound(struct ctx *c, struct flow *flow, struct miss *m)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int rc;

	set_options(c, flow, m->fd);
	tcp_event(c, flow, TCP_EV_SOCK_ACCEPTED);
	rc = flow_adopt(&c->epoll, &c->ft, flow, INISIDE, m->fd, c->now);
	if (rc)
		return rc;
	m->fd = -1;
	(void)tcp_send_syn(c, flow); /* a lost one is sent again */
	conn->snd_nxt = conn->iss + 1;
	tcp_event(c, flow, TCP_EV_TAP_SYN_SENT);
	tcp_timer_data_sent(c, flow);
	return 0;
}

static int tcp_open(struct ctx *c, struct flow *flow, const struct verdict *v,
		    struct miss *m)
{
	int rc;

	(void)v;
	tcp_handshake_start(c, flow);
	rc = tcp_tapside(flow) == INISIDE ? open_outbound(c, flow, m) :
					    open_inbound(c, flow, m);
	if (rc)
		timer_set(&c->timers, flow, 0);
	return rc;
}

/* The guest's SYN, as an ICMP error quotes it */
static struct tcp_hdr quoted_syn(const struct flowside *key, uint32_t seq)
{
	return (struct tcp_hdr){
		.source = htons(key->eport),
		.dest = htons(key->oport),
		.seq = htonl(seq),
		.off_res = sizeof(struct tcp_hdr) / 4 << 4,
		.flags = TCP_FLAG_SYN,
	};
}

/* The guest's SYN fails: tell it as the network would (RFC 1122 4.2.3.9) */
static void refuse(struct ctx *c, const struct flowside *key, uint32_t seq,
		   int err)
{
	struct tcp_hdr th = quoted_syn(key, seq);
	uint8_t type, code;

	if (err == ETIMEDOUT)
		return; /* silence, as it was; the guest tries again */
	if (icmp_error_from_errno(err, inany_is_v4(&key->eaddr), &type, &code))
		(void)icmp_error_quote(c, NULL, key, IPPROTO_TCP, type, code, 0,
				       &th, sizeof(th), sizeof(th));
	else
		tcp_send_rst(c, key, 0, seq + 1, TCP_FLAG_ACK);
}

static void tcp_reject(struct ctx *c, struct miss *m, int err)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };
	struct frame f;

	if (m->fd >= 0) /* the peer sees a RST */
		(void)setsockopt(m->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	if (parked_syn(c, m, &f))
		refuse(c, &f.key, ntohl(tcp_header(&f)->seq), err);
}

/* tcp_connected() - The peer accepted: now the guest's SYN is answered */
void tcp_connected(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	/* From now on ICMP is advice, and no reason to give up (RFC 5927 4.1):
	 * which is what the kernel does if nobody asks for errors */
	icmp_error_keep(tcp_fd(flow), tcp_sock_is_v4(flow), false);
	tcp_event(c, flow, TCP_EV_SOCK_ACCEPTED);
	(void)tcp_send_syn(c, flow);
	conn->snd_nxt = conn->iss + 1;
	tcp_event(c, flow, TCP_EV_TAP_SYN_SENT);
	tcp_timer_data_sent(c, flow);
}

/* Both directions, edge-triggered: mostly one epoll_ctl() in a connection's
 * life. EPOLLPRI: urgent data */
static uint32_t tcp_interest(const struct flow *flow, unsigned sidei)
{
	(void)flow;
	(void)sidei;
	return EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
}

static int sock_error(const struct flow *flow)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(tcp_fd(flow), SOL_SOCKET, SO_ERROR, &err, &len))
		return errno;
	return err;
}

/* EPOLLERR: reset the connection if there is an error indeed */
static void sock_failed(struct ctx *c, struct flow *flow)
{
	int err = sock_error(flow);

	if (err)
		tcp_reset(c, flow, WHY_RST_PEER, err);
}

/* relay_icmp() - Tell the guest why connect() failed as the host was told, by
 * whoever said so; false if it was no ICMP, or an old kernel kept the errno only */
static bool relay_icmp(struct ctx *c, struct flow *flow)
{
	struct tcp_hdr th =
		quoted_syn(&flow->f.side[INISIDE], tcp_conn(flow)->irs);
	struct sock_error e;
	union inany local;
	uint16_t port;

	if (icmp_error_next(tcp_fd(flow), NULL, 0, &e))
		return false;
	/* The host itself, which is not there for the guest */
	if (!dgram_name(tcp_fd(flow), &local, &port) &&
	    inany_equal(&local, &e.offender))
		e.offender = (union inany){ 0 };
	return icmp_error_relay(c, flow, &e, &th, sizeof(th));
}

static void connecting(struct ctx *c, struct flow *flow, uint32_t events)
{
	const struct flowside *key = &flow->f.side[INISIDE];
	int err = events & (EPOLLERR | EPOLLHUP) ? sock_error(flow) : 0;

	if (err) {
		flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
		if (!relay_icmp(c, flow))
			refuse(c, key, tcp_conn(flow)->irs, err);
		tcp_close(c, flow,
			  err == ECONNREFUSED ? WHY_REFUSED :
			  err == ETIMEDOUT    ? WHY_TIMEOUT :
						WHY_UNREACHABLE,
			  err);
		return;
	}
	if (events & EPOLLOUT)
		tcp_connected(c, flow);
}

static void tcp_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
			  uint32_t events)
{
	struct tcp_conn *conn = tcp_conn(flow);

	(void)sidei;
	if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) && !conn->sock_eof)
		conn->sock_ready = true;
	/* A reset hangs up too, but it is no end of the stream */
	if ((events & (EPOLLRDHUP | EPOLLHUP)) && !(events & EPOLLERR))
		conn->sock_rdhup = true;
	if (events & EPOLLPRI)
		conn->sock_urgent = true;

	if (!tcp_has(flow, TCP_EV_SOCK_ACCEPTED)) {
		connecting(c, flow, events);
		return;
	}
	/* What the peer sent before it reset is still in the socket, and recv()
	 * returns it before the error: the guest gets it first */
	if (events & EPOLLERR) {
		if (tcp_has(flow, TCP_EV_ESTABLISHED))
			tcp_to_tap(c, flow);
		if (!flow->f.closed)
			sock_failed(c, flow);
		if (flow->f.closed)
			return;
	}
	if (!tcp_has(flow, TCP_EV_ESTABLISHED))
		return; /* tcp_from_tap() comes back to it */
	if (events & EPOLLOUT)
		tcp_sock_drain(c, flow);
	if (!flow->f.closed && conn->sock_ready)
		tcp_to_tap(c, flow);
}

/* A connection was accepted: whose is it? Python decides. */
static void accepted(struct ctx *c, const struct listener *l, uint32_t number,
		     int fd, const union sockaddr_inany *peer)
{
	struct flowside key = { .oaddr = l->addr, .oport = l->port };
	union sockaddr_inany sa;
	socklen_t len = sizeof(sa);

	if (inany_from_sa(&key.eaddr, &key.eport, peer) ||
	    (inany_is_any(&l->addr) &&
	     (getsockname(fd, &sa.sa, &len) ||
	      inany_from_sa(&key.oaddr, &key.oport, &sa)))) {
		(void)close(fd);
		return;
	}
	count(&c->cnt, CNT_MISS);
	if (stage_find(&c->stage, IPPROTO_TCP, l->pif, &key) ||
	    !stage_add(&c->stage, IPPROTO_TCP, l->pif, &key, (int32_t)number,
		       fd, c->now))
		(void)close(fd);
}

/* spare_take() - A descriptor for refuse_one(), or -1 if even that failed */
static int spare_take(const struct ctx *c)
{
	return fcntl(c->epoll.fd[EPOLL_MAIN], F_DUPFD_CLOEXEC, 0);
}

/* refuse_one() - No descriptor is left: reset the next connection, which would
 * else keep the listener readable, and us awake, until somebody closes one
 *
 * Return: 0, or -errno
 */
static int refuse_one(struct ctx *c, const struct listener *l)
{
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };
	int fd, err;

	if (tcp_shared(c)->spare_fd >= 0)
		(void)close(tcp_shared(c)->spare_fd);
	fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	err = fd < 0 ? errno : 0;
	if (fd >= 0) {
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
		(void)close(fd);
	}
	tcp_shared(c)->spare_fd = spare_take(c);
	return -err;
}

static void tcp_listen(struct ctx *c, struct listener *l, uint32_t number)
{
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		union sockaddr_inany sa;
		socklen_t len = sizeof(sa);
		int fd = accept4(l->fd, &sa.sa, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			accepted(c, l, number, fd, &sa);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		count(&c->cnt, CNT_ACCEPT_ERRORS);
		flow_log(&c->log, c->now, SOCK_LIMIT, NULL, errno, 0, 0, 0);
		if ((errno != EMFILE && errno != ENFILE) || refuse_one(c, l))
			return;
	}
}

/* What is left of a closed flow: its place in the list of those that owe an
 * acknowledgement, and everything else if the datapath is being torn down */
static bool tcp_defer(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	release(c, flow);
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
	int fd = socket(af, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int zero = 0, rc;

	if (fd < 0)
		return false;
	rc = setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero));
	(void)close(fd);
	return !rc;
}

static int tcp_init(struct ctx *c, const uint8_t secret[16])
{
	struct tcp_shared *s = calloc(1, sizeof(*s));
	size_t len = c->ft.max * sizeof(*s->ack_list);

	if (!s)
		return -ENOMEM;
	c->shared[FLOW_TCP] = s;
	memcpy(&s->isn_key, secret, sizeof(s->isn_key));
	s->budget = MIN((uint64_t)c->tap.queue_frames * (c->tap.mtu - 40),
			TCP_BUDGET_MAX);
	s->peek_off[0] = has_peek_off(AF_INET);
	s->peek_off[1] = has_peek_off(AF_INET6);
	s->spare_fd = spare_take(c);
	s->ack_list = mmap(NULL, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->ack_list == MAP_FAILED) {
		s->ack_list = NULL;
		return -ENOMEM;
	}
	return pool_init(&s->chunks, TCP_CHUNK, CHUNKS);
}

static void tcp_fini(struct ctx *c)
{
	struct tcp_shared *s = tcp_shared(c);

	if (s->spare_fd >= 0)
		(void)close(s->spare_fd);
	pool_free(&s->chunks);
	if (s->ack_list)
		munmap(s->ack_list, c->ft.max * sizeof(*s->ack_list));
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
	.name = "tcp",
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
	.timer = tcp_timer_expired,
	.listen = tcp_listen,
	.flush = tcp_flush,
	.close = tcp_close_asked,
	.defer = tcp_defer,
};
