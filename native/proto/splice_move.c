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
#include <stddef.h>
#include <sys/socket.h>

#include "proto/splice.h"
#include "proto/tcp.h"

#define SPLICE_IOV 64 /* chunks in one sendmsg(); a read is 33 at most */

/** struct splice_chunk - A pool buffer with bytes that wait
 * @next:	The chunk after it, or POOL_NONE
 * @start:	First byte in @data that the socket does not have
 * @end:	Byte after the last
 * @data:	Up to the end of the buffer
 */
struct splice_chunk {
	uint32_t next;
	uint32_t start;
	uint32_t end;
	uint8_t data[];
};

#define SPLICE_CHUNK ((uint32_t)(TCP_CHUNK - sizeof(struct splice_chunk)))

static struct splice_chunk *chunk_at(const struct ctx *c, uint32_t i)
{
	return (struct splice_chunk *)(void *)pool_at(tcp_chunks(c), i);
}

/* splice_room() - Bytes that the pool can hold */
static size_t splice_room(const struct ctx *c)
{
	const struct pool *p = tcp_chunks(c);

	return p->max > p->used ? (size_t)(p->max - p->used) * SPLICE_CHUNK : 0;
}

/* splice_hold() - Keep bytes that wait; there is room, the caller looked */
static void splice_hold(struct ctx *c, struct splice_dir *d,
			const uint8_t *data, uint32_t len)
{
	assert(!d->held);
	d->held = len;
	count_n(&c->cnt, CNT_SPLICE_BUFFERED, len);
	while (len) {
		uint32_t i = pool_get(tcp_chunks(c)),
			 n = MIN(len, SPLICE_CHUNK);
		struct splice_chunk *chunk;

		assert(i != POOL_NONE);
		chunk = chunk_at(c, i);
		chunk->next = POOL_NONE;
		chunk->start = 0;
		chunk->end = n;
		memcpy(chunk->data, data, n);
		if (d->head == POOL_NONE)
			d->head = i;
		else
			chunk_at(c, d->tail)->next = i;
		d->tail = i;
		data += n;
		len -= n;
	}
}

/* splice_drop() - The first @len held bytes are no longer needed */
static void splice_drop(struct ctx *c, struct splice_dir *d, uint32_t len)
{
	d->held -= len;
	while (len) {
		struct splice_chunk *chunk = chunk_at(c, d->head);
		uint32_t n = MIN(len, chunk->end - chunk->start), i = d->head;

		len -= n;
		chunk->start += n;
		if (chunk->start < chunk->end)
			return;
		d->head = chunk->next;
		pool_put(tcp_chunks(c), i);
	}
}

void splice_release(struct ctx *c, struct flow *flow, unsigned from)
{
	struct splice_dir *d = &splice_conn(flow)->dir[from];

	splice_drop(c, d, d->held);
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
		took = sendmsg(flow->f.fd[to], &mh,
			       MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (took < 0 && errno == EINTR);
	if (took < 0) {
		err = errno;
		took = 0;
	}
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
	uint32_t len = 0, took;
	unsigned n = 0;

	for (uint32_t i = d->head; i != POOL_NONE && n < SPLICE_IOV; n++) {
		struct splice_chunk *chunk = chunk_at(c, i);

		iov[n].iov_base = chunk->data + chunk->start;
		iov[n].iov_len = chunk->end - chunk->start;
		len += chunk->end - chunk->start;
		i = chunk->next;
	}
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
	if (!n && (!d->err || d->err == EPIPE))
		d->eof = true;
	else
		conn->abort = true;
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

/* splice_pass() - One read, one write; true if there may be more at once */
static bool splice_pass(struct ctx *c, struct flow *flow, unsigned from)
{
	struct splice_dir *d = &splice_conn(flow)->dir[from];
	bool peek = d->want > splice_room(c);
	uint32_t got, took, want = d->want;
	int fd = flow->f.fd[from];
	struct iovec iov;
	ssize_t n;

	n = recv(fd, c->bufs, want, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
	if (n <= 0) {
		splice_read_failed(c, flow, from, n, errno);
		return false;
	}
	got = (uint32_t)n;
	iov = (struct iovec){ c->bufs, got };
	took = splice_send(c, flow, !from, &iov, 1, got);
	flow_touch(flow, from, 1, took, c->now);
	count_n(&c->cnt, CNT_SPLICE_BYTES, took);
	if (splice_is(flow, SPLICE_EV_OVER, !from))
		return false;
	if (peek && took)
		(void)recv(fd, NULL, took, MSG_DONTWAIT | MSG_TRUNC);
	else if (!peek && took < got)
		splice_hold(c, d, c->bufs + took, got - took);
	splice_adapt(d, got, took);
	return took == got;
}

void splice_move(struct ctx *c, struct flow *flow, unsigned from)
{
	do {
		if (!splice_drain(c, flow, from))
			return;
		if (splice_is(flow, SPLICE_EV_IN_DONE, from))
			return;
	} while (splice_pass(c, flow, from) &&
		 splice_is(flow, SPLICE_EV_OVER, from));
}
