/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_host.c - The host's socket of a connection: made ready, or given by Python
 *
 * A connection usually connects or accepts its socket. Python may give it one
 * that is connected already, as it begins or later in place of the one that it
 * has: so Python can speak with the guest first, over a pair of sockets, and
 * hand it over when it knows where to. Such a socket may be a UNIX one.
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/sock.h"
#include "base/sys.h"
#include "proto/tcp_conn.h"

/* peer_family() - AF_INET, AF_INET6 or AF_UNIX of a connected stream socket, or
 * -errno: it is none that a connection could have */
static int peer_family(int fd)
{
	int type = 0, proto = 0, family;
	socklen_t len[] = { sizeof(type), sizeof(proto),
			    sizeof(struct sockaddr_storage) };
	struct sockaddr_storage peer;

	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len[0]) ||
	    sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &len[1]))
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	family = sock_family(fd);
	if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
		return -EAFNOSUPPORT;
	if (family != AF_UNIX && proto != IPPROTO_TCP)
		return -EPROTONOSUPPORT;
	if (sys_getpeername(fd, (struct sockaddr *)&peer, &len[2]))
		return -errno;
	return family;
}

/* tcp_host_setup() - Make a socket of this family ready for a connection
 *
 * What only some connections need is set when they need it: each option costs a
 * short one half a per cent.
 */
void tcp_host_setup(struct ctx *c, struct flow *flow, int fd, int family)
{
	const bool *has_peek_off = tcp_shared(c)->peek_off;
	struct tcp_conn *conn = tcp_conn(flow);
	int on = 1;

	conn->sock_unix = family == AF_UNIX;
	conn->nodelay = conn->sock_unix;
	conn->spoke = false;
	/* An urgent byte that is not in line is skipped by peeks, but counted
	 * by sequence numbers: what follows would be sent twice */
	(void)sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
	conn->peek_off = conn->sock_unix || has_peek_off[family != AF_INET];
	conn->peek_on = false;
	/* A peek at a UNIX socket ends where descriptors were passed along */
	conn->peeks_short = conn->sock_unix;
}

/* tcp_host_given() - Check and make ready a socket that Python gives; 0, or
 * -errno */
int tcp_host_given(struct ctx *c, struct flow *flow, int fd)
{
	int family = peer_family(fd);

	if (family < 0)
		return family;
	tcp_host_setup(c, flow, fd, family);
	tcp_conn(flow)->given = tcp_conn(flow)->spoke = true;
	return 0;
}

/* is_read_out() - Has the guest acknowledged whatever the socket had for it? */
static bool is_read_out(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint8_t byte;

	/* A header that comes before the socket's first byte is in no queue */
	if (conn->proxy && seq_lt(conn->snd_una, tcp_data_end(flow)))
		return false;
	tcp_consume(c, flow, true);
	return conn->sock_una == tcp_data_end(flow) &&
	       tcp_peek(c, flow, conn->snd_nxt, &byte, 1) <= 0;
}

/* target_named() - A flow goes where its socket is connected to, if that has a
 * name, and if the flow's own addresses are not those of a client */
static void target_named(struct ctx *c, struct flow *flow, int fd)
{
	union sockaddr_inany sa = { 0 };
	socklen_t len = sizeof(sa);
	union inany addr;
	uint16_t port;

	if (tcp_sockside(flow) == TGTSIDE &&
	    !sys_getpeername(fd, &sa.sa, &len) &&
	    !inany_from_sa(&addr, &port, &sa))
		flow_set_endpoint(&c->ft, flow, TGTSIDE, &addr, port);
}

/**
 * tcp_adopt() - The handler's adopt(): go on with another connected socket
 *
 * What the guest sent and the old socket took is with whoever holds its other
 * end; the new one gets what comes after it, and an end of the guest's stream
 * again. What the old one had for the guest must be acknowledged. A connection
 * that is inspected has none, and what the guest sent is for the new one, unless
 * @forget.
 */
int tcp_adopt(struct ctx *c, struct flow *flow, int fd, bool forget)
{
	struct tcp_conn *conn = tcp_conn(flow);
	unsigned sidei = tcp_sockside(flow);
	int family = peer_family(fd), old = -1, rc;

	if (!tcp_has(flow, TCP_EV_SYN_SENT))
		return -EINPROGRESS;
	if (tcp_has(flow, TCP_EV_PEER_FIN))
		return -EPIPE;
	if (family < 0)
		return family;
	if (!conn->inspected && !is_read_out(c, flow))
		return -EAGAIN;
	if (conn->inspected)
		rc = flow_adopt(&c->epoll, &c->ft, flow, sidei, fd, c->now);
	else
		rc = flow_exchange(&c->epoll, &c->ft, flow, sidei, fd, &old,
				   c->now);
	if (rc)
		return rc;
	flow_log(&c->log, c->now, TCP_ADOPT, flow, old, fd, family, 0);
	if (old >= 0)
		ctx_close_later(c, old);
	tcp_inspect_done(c, flow);
	conn->joining = false;
	if (forget)
		tcp_rcvq_taken(c, conn, tcp_rcvq_held(c, conn));
	tcp_host_setup(c, flow, fd, family);
	conn->given = conn->spoke = true;
	conn->sock_ready = conn->sock_rdhup = false; /* epoll tells anew */
	conn->keepalive = 0;
	target_named(c, flow, fd);
	if (tcp_has(flow, TCP_EV_FIN_PASSED))
		(void)sys_shutdown(fd, SHUT_WR);
	return 0;
}
