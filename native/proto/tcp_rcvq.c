/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_rcvq.c - Bytes of the guest that no socket has yet
 *
 * One sparse buffer per connection, allocated only while it is needed. It
 * holds, side by side, bytes in order that a full socket did not take (@head
 * up to rcv_nxt) and bytes that came out of order (@range, beyond rcv_nxt).
 * Byte s lives in chunk (s - @base) / chunk size, modulo RCVQ_SLOTS, so filling a
 * gap moves nothing: rcv_nxt just jumps. The head itself lives in a buffer of
 * the same pool, of which only the first page is ever touched.
 *
 * Invariants: seq @head <= rcv_nxt <= start of first range; ranges rise, are
 * disjoint and not adjacent; a chunk is present where any of its bytes are.
 */

#include <errno.h>

#include "proto/tcp_conn.h"

#define RCVQ_CHUNK   TCP_CHUNK
#define RCVQ_SLOTS   256 /* power of two: slots survive the 2^32 wrap */
#define RCVQ_INDEXES ((uint32_t)((1ULL << 32) / RCVQ_CHUNK))
#define RCVQ_RANGES  32 /* gaps kept track of */

_Static_assert(RCVQ_CHUNK *(RCVQ_SLOTS - 2) >= TCP_WND_MAX, "window fits");

/** struct rcvq
 * @base:	Sequence number of slot 0
 * @head:	First byte that the socket does not have
 * @n_ranges:	Entries of @range
 * @latest:	Index of the range that grew last (first in SACK, RFC 2018 4)
 * @range:	Out-of-order bytes
 * @chunk:	Pool buffers
 */
struct rcvq {
	uint32_t base;
	uint32_t head;
	uint32_t n_ranges;
	uint32_t latest;
	struct seq_range range[RCVQ_RANGES];
	uint32_t chunk[RCVQ_SLOTS];
};

static struct rcvq *rcvq_get(const struct ctx *c, const struct tcp_conn *conn)
{
	if (conn->rcvq == POOL_NONE)
		return NULL;
	return (struct rcvq *)(void *)pool_at(&tcp_shared(c)->chunks,
					      conn->rcvq);
}

static struct rcvq *rcvq_make(struct ctx *c, struct tcp_conn *conn)
{
	struct rcvq *q = rcvq_get(c, conn);

	if (q)
		return q;
	conn->rcvq = pool_get(&tcp_shared(c)->chunks);
	if (conn->rcvq == POOL_NONE) {
		count(&c->cnt, CNT_POOL_EMPTY);
		return NULL;
	}
	q = rcvq_get(c, conn);
	q->base = q->head = conn->rcv_nxt;
	q->n_ranges = q->latest = 0;
	memset(q->chunk, 0xff, sizeof(q->chunk)); /* POOL_NONE */
	return q;
}

static uint32_t *rcvq_slot(struct rcvq *q, uint32_t seq)
{
	return &q->chunk[(seq - q->base) / RCVQ_CHUNK % RCVQ_SLOTS];
}

static void slot_free(struct ctx *c, uint32_t *slot)
{
	if (*slot == POOL_NONE)
		return;
	pool_put(&tcp_shared(c)->chunks, *slot);
	*slot = POOL_NONE;
}

/* Copy bytes to where they belong. All or nothing: -ENOBUFS changes nothing
 * that matters (an empty chunk may stay until it is passed). */
static int rcvq_store(struct ctx *c, struct rcvq *q, uint32_t seq,
		      const uint8_t *data, uint32_t len)
{
	for (uint32_t at = 0; at < len;) {
		uint32_t off = (seq + at - q->base) % RCVQ_CHUNK;
		uint32_t *slot = rcvq_slot(q, seq + at);

		if (*slot == POOL_NONE)
			*slot = pool_get(&tcp_shared(c)->chunks);
		if (*slot == POOL_NONE) {
			count(&c->cnt, CNT_POOL_EMPTY);
			return -ENOBUFS;
		}
		at += RCVQ_CHUNK - off;
	}
	for (uint32_t at = 0; at < len;) {
		uint32_t off = (seq + at - q->base) % RCVQ_CHUNK;
		uint32_t n = MIN(RCVQ_CHUNK - off, len - at);

		memcpy(pool_at(&tcp_shared(c)->chunks,
			       *rcvq_slot(q, seq + at)) +
			       off,
		       data + at, n);
		at += n;
	}
	return 0;
}

/* tcp_rcvq_held() - Bytes in order that the socket has not taken */
uint32_t tcp_rcvq_held(const struct ctx *c, const struct tcp_conn *conn)
{
	const struct rcvq *q = rcvq_get(c, conn);

	return q ? conn->rcv_nxt - q->head : 0;
}

/* The head moves on by @n bytes: chunks that it leaves go back */
static void rcvq_advance(struct ctx *c, struct rcvq *q, uint32_t n)
{
	uint32_t i = (q->head - q->base) / RCVQ_CHUNK;
	uint32_t end;

	q->head += n;
	end = (q->head - q->base) / RCVQ_CHUNK;
	for (; i != end; i = (i + 1) % RCVQ_INDEXES)
		slot_free(c, &q->chunk[i % RCVQ_SLOTS]);
}

/* tcp_rcvq_skip() - The socket takes the next @n bytes straight from the
 * guest; call before rcv_nxt moves, and only while nothing is held */
void tcp_rcvq_skip(struct ctx *c, struct tcp_conn *conn, uint32_t n)
{
	struct rcvq *q = rcvq_get(c, conn);

	if (q)
		rcvq_advance(c, q, n);
}

/**
 * tcp_rcvq_in_order() - Keep bytes that start at rcv_nxt; does not move it
 * @iov:	Bytes
 * @n:		Entries
 * @skip:	Bytes at the start of @iov that the socket did take
 *
 * Return: 0, or -ENOBUFS: nothing was kept, but @skip bytes are accounted for
 */
int tcp_rcvq_in_order(struct ctx *c, struct tcp_conn *conn,
		      const struct iovec *iov, unsigned n, uint32_t skip)
{
	struct rcvq *q = rcvq_make(c, conn);
	uint32_t seq = conn->rcv_nxt + skip;
	int rc;

	if (!q)
		return -ENOBUFS;
	rcvq_advance(c, q, skip);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = (uint32_t)iov[i].iov_len;
		uint32_t cut = MIN(skip, len);

		skip -= cut;
		if (cut == len)
			continue;
		rc = rcvq_store(c, q, seq, (uint8_t *)iov[i].iov_base + cut,
				len - cut);
		if (rc)
			return rc;
		seq += len - cut;
	}
	return 0;
}

/* Nothing held, nothing out of order: no buffer is needed */
static void rcvq_drop_empty(struct ctx *c, struct tcp_conn *conn)
{
	const struct rcvq *q = rcvq_get(c, conn);

	if (q && q->head == conn->rcv_nxt && !q->n_ranges)
		tcp_rcvq_release(c, conn);
}

/* Enter [start, end) into the sorted ranges, joining what it touches */
static int rcvq_add_range(struct rcvq *q, uint32_t start, uint32_t end)
{
	uint32_t first = 0, last;

	while (first < q->n_ranges && seq_lt(q->range[first].end, start))
		first++;
	for (last = first;
	     last < q->n_ranges && seq_le(q->range[last].start, end); last++) {
		start = seq_lt(q->range[last].start, start) ?
				q->range[last].start :
				start;
		end = seq_max(q->range[last].end, end);
	}
	if (first == last && q->n_ranges == RCVQ_RANGES)
		return -ENOSPC;
	memmove(&q->range[first + 1], &q->range[last],
		(q->n_ranges - last) * sizeof(q->range[0]));
	q->n_ranges += 1 + first - last;
	q->range[first] = (struct seq_range){ start, end };
	q->latest = first;
	return 0;
}

/**
 * tcp_rcvq_out_of_order() - Keep bytes from beyond a gap
 * @seq:	Sequence number, after rcv_nxt and inside the window
 *
 * Return: 0; -ENOBUFS or -ENOSPC when they could not be kept
 */
int tcp_rcvq_out_of_order(struct ctx *c, struct tcp_conn *conn, uint32_t seq,
			  const uint8_t *data, uint32_t len)
{
	struct rcvq *q = rcvq_make(c, conn);
	int rc;

	if (!q)
		return -ENOBUFS;
	rc = rcvq_store(c, q, seq, data, len);
	return rc ? rc : rcvq_add_range(q, seq, seq + len);
}

/**
 * tcp_rcvq_join() - rcv_nxt moved: take in the ranges that it reached
 * @most:	Bytes; what is beyond is forgotten
 * Return: bytes by which the caller moves it on
 */
uint32_t tcp_rcvq_join(struct ctx *c, struct tcp_conn *conn, uint64_t most)
{
	struct rcvq *q = rcvq_get(c, conn);
	uint32_t next = conn->rcv_nxt;

	while (q && q->n_ranges && seq_le(q->range[0].start, next)) {
		next = seq_max(next, q->range[0].end);
		q->n_ranges--;
		memmove(&q->range[0], &q->range[1],
			q->n_ranges * sizeof(q->range[0]));
		q->latest = q->latest ? q->latest - 1 : 0;
	}
	if (next - conn->rcv_nxt > most)
		next = conn->rcv_nxt + (uint32_t)most;
	if (next == conn->rcv_nxt)
		rcvq_drop_empty(c, conn);
	tcp_shared(c)->held += next - conn->rcv_nxt;
	return next - conn->rcv_nxt;
}

/**
 * tcp_rcvq_iov() - Bytes in order, for sendmsg()
 * Return: entries of @iov filled
 */
unsigned tcp_rcvq_iov(const struct ctx *c, const struct tcp_conn *conn,
		      struct iovec *iov, unsigned max)
{
	struct rcvq *q = rcvq_get(c, conn);
	unsigned n = 0;
	uint32_t seq;

	if (!q)
		return 0;
	for (seq = q->head; seq != conn->rcv_nxt && n < max; n++) {
		uint32_t off = (seq - q->base) % RCVQ_CHUNK;
		uint32_t len = MIN(RCVQ_CHUNK - off, conn->rcv_nxt - seq);

		iov[n].iov_base =
			pool_at(&tcp_shared(c)->chunks, *rcvq_slot(q, seq)) +
			off;
		iov[n].iov_len = len;
		seq += len;
	}
	return n;
}

/* tcp_rcvq_taken() - The socket took @n bytes; an empty queue goes */
void tcp_rcvq_taken(struct ctx *c, struct tcp_conn *conn, uint32_t n)
{
	struct rcvq *q = rcvq_get(c, conn);

	if (!q)
		return;
	tcp_shared(c)->held -= n;
	rcvq_advance(c, q, n);
	rcvq_drop_empty(c, conn);
}

/* tcp_rcvq_ranges() - What is held out of order, the latest first (SACK) */
unsigned tcp_rcvq_ranges(const struct ctx *c, const struct tcp_conn *conn,
			 struct seq_range *ranges, unsigned max)
{
	const struct rcvq *q = rcvq_get(c, conn);
	unsigned n = 0;

	if (!q || !q->n_ranges)
		return 0;
	ranges[n++] = q->range[q->latest];
	for (uint32_t i = 0; i < q->n_ranges && n < max; i++)
		if (i != q->latest)
			ranges[n++] = q->range[i];
	return n;
}

/* tcp_rcvq_release() - Give everything back */
void tcp_rcvq_release(struct ctx *c, struct tcp_conn *conn)
{
	struct rcvq *q = rcvq_get(c, conn);

	if (!q)
		return;
	tcp_shared(c)->held -= conn->rcv_nxt - q->head;
	for (unsigned i = 0; i < RCVQ_SLOTS; i++)
		slot_free(c, &q->chunk[i]);
	pool_put(&tcp_shared(c)->chunks, conn->rcvq);
	conn->rcvq = POOL_NONE;
}
