/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_open.c - How connections begin: by the guest, by the peer, or not at all
 *
 * The guest opens: a socket connects, and only when the peer has accepted is
 * the guest's SYN answered; at once if Python gives a socket that is connected.
 * The guest says first where it wants to go: it is connected before the socket
 * is. The peer opens: it is accepted already, and a SYN goes to the guest. What
 * fails is told as the network would tell it.
 */

#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/sock.h"
#include "base/sys.h"
#include "proto/dgram.h"
#include "proto/icmp_error.h"
#include "proto/tcp_conn.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* A guest that is connected waits for the peer no longer than 15 s (1 + 2 + 4 + 8) */
#define SYN_RETRIES 3

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
	int on = 1, rc = dgram_outbound(c, fd, v4);
	union sockaddr_inany sa;
	socklen_t len;

	if (rc || inany_is_any(&side->oaddr))
		return rc;
	if (!side->oport)
		(void)sys_setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on,
				     sizeof(on));
	len = inany_to_sa(&sa, &side->oaddr, side->oport, c->scope_id);
	return sys_bind(fd, &sa.sa, len) ? -errno : 0;
}

/**
 * dial() - Begin to connect a new socket to where a flow goes
 * @syn:	What the guest began with, or NULL: it is connected already
 *
 * Return: 0 or -errno
 */
static int dial(struct ctx *c, struct flow *flow, const struct frame *syn)
{
	const struct flowside *side = &flow->f.side[TGTSIDE];
	bool v4 = inany_is_v4(&side->eaddr);
	union sockaddr_inany sa;
	socklen_t len;
	int fd, rc;

	fd = sys_socket(v4 ? AF_INET : AF_INET6,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			IPPROTO_TCP);
	if (fd < 0) {
		rc = -errno;
		count(&c->cnt, CNT_SOCK_EMFILE);
		flow_log(&c->log, c->now, SOCK_LIMIT, flow, -rc, 0, 0, 0);
		return rc;
	}
	tcp_host_setup(c, flow, fd, v4 ? AF_INET : AF_INET6);
	/* We are no hop: what the guest's hosts and routers see is its own TTL,
	 * and who says "time exceeded" says it to the guest (traceroute -T) */
	if (syn && syn->ttl != IPDEFTTL)
		dgram_set_ttl(fd, v4, syn->ttl);
	if (!tcp_has(flow, TCP_EV_ACCEPTED))
		icmp_error_keep(fd, v4, true);
	rc = bind_outbound(c, fd, side, v4);
	if (rc)
		goto err;
	len = inany_to_sa(&sa, &side->eaddr, side->eport, c->scope_id);
	if (sys_connect(fd, &sa.sa, len) && errno != EINPROGRESS) {
		rc = -errno;
		goto err;
	}
	if (!tcp_has(flow, TCP_EV_CONNECTING))
		tcp_event(c, flow, TCP_EV_CONNECTING);
	rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, fd, c->now);
	if (!rc) {
		ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTING);
		return 0;
	}
err:
	(void)close(fd);
	return rc;
}

/* The guest opens: connect to where the verdict says */
static int open_outbound(struct ctx *c, struct flow *flow, struct miss *m)
{
	struct frame syn;

	return dial(c, flow, parked_syn(c, m, &syn) ? &syn : NULL);
}

/* The guest opens, and the peer is there already: answered as soon as its SYN
 * is read */
static int open_given(struct ctx *c, struct flow *flow, struct miss *m)
{
	int rc = tcp_host_given(c, flow, m->given_fd);

	if (rc)
		return rc;
	tcp_event(c, flow, TCP_EV_ACCEPTED);
	rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, m->given_fd, c->now);
	if (rc)
		return rc;
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTING);
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTED);
	return 0;
}

/* The peer opened: a SYN for the guest */
static int open_inbound(struct ctx *c, struct flow *flow,
			const struct verdict *v, struct miss *m)
{
	int rc;

	tcp_host_setup(c, flow, m->fd, sock_family(m->fd));
	if (v->proxy)
		tcp_put_before(flow, v->proxy);
	tcp_event(c, flow, TCP_EV_ACCEPTED);
	rc = flow_adopt(&c->epoll, &c->ft, flow, INISIDE, m->fd, c->now);
	if (rc)
		return rc;
	m->fd = -1;
	if (!m->begun) /* a client is accepted once */
		ctx_said(c, flow, INISIDE, CAPTURE_ACCEPTED);
	(void)tcp_send_syn(c, flow); /* a lost one is sent again */
	tcp_event(c, flow, TCP_EV_SYN_SENT);
	return 0;
}

int tcp_open(struct ctx *c, struct flow *flow, const struct verdict *v,
	     struct miss *m)
{
	int rc;

	tcp_handshake_start(c, flow);
	tcp_conn(flow)->again = m->again;
	if (v->action == VERDICT_INSPECT)
		rc = tcp_inspect_open(c, flow);
	else if (m->given_fd >= 0)
		rc = open_given(c, flow, m);
	else if (tcp_tapside(flow) == INISIDE)
		rc = open_outbound(c, flow, m);
	else
		rc = open_inbound(c, flow, v, m);
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
		(void)icmp_error_quote(c, icmp_error_reporter(c, err, key), key,
				       IPPROTO_TCP, type, code, 0, &th,
				       sizeof(th), sizeof(th));
	else
		tcp_send_rst(c, key, 0, seq + 1, TCP_FLAG_ACK);
}

void tcp_reject(struct ctx *c, struct miss *m, int err)
{
	struct frame f;

	if (parked_syn(c, m, &f))
		refuse(c, &f.key, ntohl(tcp_header(&f)->seq), err);
}

/* The peer accepted: now the guest's SYN is answered */
static void connected(struct ctx *c, struct flow *flow)
{
	/* From now on ICMP is advice, and no reason to give up (RFC 5927 4.1):
	 * which is what the kernel does if nobody asks for errors */
	icmp_error_keep(tcp_fd(flow), tcp_sock_is_v4(flow), false);
	tcp_event(c, flow, TCP_EV_ACCEPTED);
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTED);
	(void)tcp_send_syn(c, flow);
	tcp_event(c, flow, TCP_EV_SYN_SENT);
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

/* why_not() - Why a connection did not come about, by the socket's error */
static enum flow_why why_not(int err)
{
	return err == ECONNREFUSED ? WHY_REFUSED :
	       err == ETIMEDOUT	   ? WHY_TIMEOUT :
				     WHY_UNREACHABLE;
}

/* tcp_connecting() - The socket has news of connect() */
void tcp_connecting(struct ctx *c, struct flow *flow, uint32_t events)
{
	const struct flowside *key = &flow->f.side[INISIDE];
	int err = events & (EPOLLERR | EPOLLHUP) ? tcp_sock_error(flow) : 0;

	if (err) {
		flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
		if (!relay_icmp(c, flow))
			refuse(c, key, tcp_conn(flow)->irs, err);
		if (err == ECONNREFUSED)
			ctx_said(c, flow, TGTSIDE, CAPTURE_REFUSED);
		tcp_close(c, flow, why_not(err), err);
		return;
	}
	if (events & EPOLLOUT)
		connected(c, flow);
}

/* tcp_connect() - The handler's connect() */
int tcp_connect(struct ctx *c, struct flow *flow, const union inany *eaddr,
		uint16_t eport)
{
	struct flowside side = flow->f.side[TGTSIDE];
	struct tcp_conn *conn = tcp_conn(flow);
	int tries = SYN_RETRIES, rc;

	if (!conn->inspected)
		return -EISCONN;
	if (inany_is_any(eaddr) ||
	    inany_is_v4(eaddr) != inany_is_v4(&side.eaddr))
		return -EAFNOSUPPORT;
	flow_set_endpoint(&c->ft, flow, TGTSIDE, eaddr, eport);
	rc = dial(c, flow, NULL);
	if (rc) {
		flow_set_endpoint(&c->ft, flow, TGTSIDE, &side.eaddr,
				  side.eport);
		return rc;
	}
	(void)sys_setsockopt(tcp_fd(flow), IPPROTO_TCP, TCP_SYNCNT, &tries,
			     sizeof(tries));
	tcp_inspect_done(c, flow);
	conn->joining = true;
	conn->keepalive = 0; /* asked before there was a socket to ask */
	return 0;
}

/* tcp_joining() - The socket has news of connect(), and the guest is there */
void tcp_joining(struct ctx *c, struct flow *flow, uint32_t events)
{
	int err = events & (EPOLLERR | EPOLLHUP) ? tcp_sock_error(flow) : 0;

	if (err) {
		flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
		tcp_reset(c, flow, why_not(err), err);
		return;
	}
	if (!(events & EPOLLOUT))
		return;
	tcp_conn(flow)->joining = false;
	ctx_said(c, flow, TGTSIDE, CAPTURE_CONNECTED);
}
