/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_peek.c - The socket's receive queue as retransmission queue
 *
 * Bytes are peeked at (MSG_PEEK) and stay in the socket until the guest
 * acknowledges them: so they can be sent again, and the kernel's flow control
 * is ours. Where the kernel has SO_PEEK_OFF for TCP (6.9 and later) a peek
 * starts where the last one ended; older ones copy what was seen already into a
 * scratch buffer first, and so do we for the last bytes of a short connection,
 * which has no other use for the option. Only a header that we put before the
 * peer's first byte is in no queue.
 */

#include <errno.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "proto/proxy.h"
#include "proto/tcp_conn.h"

#define CONSUME_BYTES (16U << 10) /* discard from the socket at least */
#define CONSUME_SKIP  16	  /* or after so many ACKs */
#define CONSUME_LAST  1024	  /* or when no more ACK is to come */
#define SKIP_IOV      128	  /* scratch entries of an old kernel's peek */
#define SKIP_LAST     4096	  /* bytes copied rather than SO_PEEK_OFF set */

/* is_skipped() - Is what lies before a peek to be copied and thrown away? Where the
 * kernel can do no better, or where that is cheaper: nothing comes after this */
static bool is_skipped(const struct tcp_conn *conn, uint32_t skip)
{
	if (!conn->peek_off)
		return true;
	return !conn->peek_on && skip && skip <= SKIP_LAST &&
	       conn->sock_rdhup && !conn->peeks_short;
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

	got = sys_recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	if (got > (ssize_t)skip)
		return got - skip;
	return ended ? 0 : -EAGAIN; /* nothing new; the end, or not yet */
}

/* header_before() - The header of the PROXY protocol that this flow has */
static uint32_t header_before(struct flow *flow, uint8_t *header)
{
	const struct tcp_conn *conn = tcp_conn(flow);

	return proxy_header(header, conn->proxy,
			    conn->sock_unix ? NULL : &flow->f.side[INISIDE]);
}

/* Peek from @seq on: at the socket's first byte, or where its peek offset is */
static ssize_t peek_from(int fd, struct tcp_conn *conn, uint32_t seq, void *buf,
			 size_t len)
{
	int off = (int)(seq - conn->sock_una);
	ssize_t got;

	if (conn->peek_on ? conn->peek_at != seq : off > 0) {
		if (sys_setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off,
				   sizeof(off)))
			return -errno;
		conn->peek_on = true;
		conn->peek_at = seq;
	}
	got = sys_recv(fd, buf, len, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	conn->peek_at += (uint32_t)got;
	return got;
}

/* tcp_put_before() - The peer's bytes begin with a header of the PROXY protocol,
 * of this version. It takes sequence numbers like any of them, but is in no
 * queue: it is made of the flow's addresses whenever it is wanted. */
void tcp_put_before(struct flow *flow, uint8_t proxy)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint8_t header[PROXY_HEADER_MAX];

	conn->proxy = proxy & 3;
	conn->sock_una += header_before(flow, header);
	conn->sock_ready = true; /* it waits for no byte of the peer */
	conn->peeks_short = true;
}

/* peek_header() - What comes before the first byte of the socket, from @seq on */
static ssize_t peek_header(struct flow *flow, uint32_t seq, void *buf,
			   size_t len)
{
	const struct tcp_conn *conn = tcp_conn(flow);
	uint8_t header[PROXY_HEADER_MAX];
	uint32_t left = conn->sock_una - seq, all;

	assert(conn->proxy);
	all = header_before(flow, header);
	assert(left <= all);
	len = MIN(len, left);
	memcpy(buf, header + all - left, len);
	return (ssize_t)len;
}

/**
 * tcp_peek() - Copy bytes of the peer without taking them from the socket
 * @seq:	Sequence number of the first byte wanted
 *
 * Return: bytes copied, 0 at the end of the stream, or -errno
 */
ssize_t tcp_peek(struct ctx *c, struct flow *flow, uint32_t seq, void *buf,
		 size_t len)
{
	struct tcp_conn *conn = tcp_conn(flow);
	int fd = tcp_fd(flow);
	uint32_t skip;
	ssize_t got;

	if (seq_lt(seq, conn->sock_una))
		return peek_header(flow, seq, buf, len);
	skip = seq - conn->sock_una;
	got = is_skipped(conn, skip) ?
		      peek_skipping(c, fd, conn->sock_rdhup, skip, buf, len) :
		      peek_from(fd, conn, seq, buf, len);
	budget_spend(&c->budget, WORK_CALL + work_bytes((uint64_t)MAX(got, 0)));
	flow_log(&c->log, c->now, TCP_SOCK_RECV, flow, len, MAX(got, 0),
		 got < 0 ? -got : 0, 0);
	return got;
}

/* Take bytes from the socket, which are wanted no more: TCP only counts them, a
 * UNIX socket copies them */
static ssize_t discard(struct ctx *c, struct flow *flow, uint32_t n)
{
	if (!tcp_conn(flow)->sock_unix)
		return sys_recv(tcp_fd(flow), NULL, n,
				MSG_TRUNC | MSG_DONTWAIT);
	return sys_recv(tcp_fd(flow), c->bufs + CTX_BUF_SIZE * (CTX_BUFS - 1),
			MIN(n, (uint32_t)CTX_BUF_SIZE), MSG_DONTWAIT);
}

/**
 * tcp_consume() - Take from the socket what the guest acknowledged
 * @all:	However little; else only when it pays
 */
void tcp_consume(struct ctx *c, struct flow *flow, bool all)
{
	struct tcp_conn *conn = tcp_conn(flow);
	uint32_t end = tcp_data_end(flow);
	uint32_t una = seq_lt(end, conn->snd_una) ? end : conn->snd_una;
	uint32_t n = una - conn->sock_una;
	bool enough = n >= CONSUME_BYTES || (una == end && n >= CONSUME_LAST);
	ssize_t got;

	if (!seq_lt(conn->sock_una, una))
		return;
	/* Not for long: a byte can hold 64 KiB of the socket's memory, and the
	 * peer may be waiting for room */
	if (!all && !enough && ++conn->consume_skip < CONSUME_SKIP) {
		tcp_timer_put_off(c, flow);
		return;
	}
	conn->consume_skip = 0;
	for (; n && (got = discard(c, flow, n)) > 0; n -= (uint32_t)got)
		conn->sock_una += (uint32_t)got;
}
