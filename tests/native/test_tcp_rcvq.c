/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TCP receive queue against a trivial model: a mark for each byte
 *
 * The stream is a fixed pattern, so that a byte tells where it belongs. The
 * model counts from 0 in 64 bits; the queue sees that modulo 2^32, from a start
 * near the wrap.
 */

#include <errno.h>
#include <string.h>

#include "proto/tcp_conn.h"
#include "test.h"

#define PATTERN 1000003U    /* bytes; a prime, no power of two divides it */
#define RING	(16U << 20) /* marks, more than the queue can hold */
#define WINDOW	(4U << 20)  /* from the head */
#define SEGMENT 70000U
#define BUFFERS 4096
#define RANGES	64

/** struct model
 * @c:		Context; only its counters, pool and sums are used
 * @conn:	The connection under test
 * @random:	Source of decisions
 * @start:	Sequence number of byte 0
 * @head:	First byte that no socket took
 * @next:	First byte that is missing
 * @latest:	Start and end of what came out of order last
 * @dropped:	Segments that were refused
 * @mark:	A byte is here, by position modulo RING
 */
struct model {
	struct ctx c;
	struct tcp_shared tcp;
	struct tcp_conn conn;
	struct test_random random;
	uint32_t start;
	uint64_t head;
	uint64_t next;
	uint64_t latest[2];
	uint64_t dropped;
	uint8_t mark[RING];
};

static uint8_t pattern[2 * PATTERN + SEGMENT];
static struct model m;

static uint8_t *bytes_at(uint64_t pos)
{
	return pattern + pos % PATTERN;
}

static uint32_t seq_at(uint64_t pos)
{
	return m.start + (uint32_t)pos;
}

static void mark(uint64_t pos, uint32_t len, uint8_t value)
{
	uint32_t at = (uint32_t)(pos % RING);
	uint32_t first = MIN(len, RING - at);

	memset(m.mark + at, value, first);
	memset(m.mark, value, len - first);
}

static bool is_marked(uint64_t pos)
{
	return m.mark[pos % RING];
}

static void model_init(uint64_t seed, uint32_t start, uint32_t buffers)
{
	memset(&m, 0, sizeof(m));
	m.c.shared[FLOW_TCP] = &m.tcp;
	m.random.state = seed;
	m.start = start;
	m.conn.rcvq = POOL_NONE;
	m.conn.rcv_nxt = m.conn.rcv_adv = start;
	m.conn.wnd_target = TCP_WND_FIRST;
	CHECK_EQ(pool_init(&m.tcp.chunks, TCP_CHUNK, buffers), 0);
}

static void model_free(void)
{
	tcp_rcvq_release(&m.c, &m.conn);
	CHECK_EQ(m.tcp.chunks.used, 0);
	CHECK_EQ(m.tcp.held, 0);
	pool_free(&m.tcp.chunks);
}

/* The window of a connection: it never lets the queue hold more than WINDOW */
static void open_window(void)
{
	uint32_t wnd = WINDOW - (uint32_t)(m.next - m.head);

	m.tcp.promised += wnd - (m.conn.rcv_adv - m.conn.rcv_nxt);
	m.conn.rcv_adv = m.conn.rcv_nxt + wnd;
}

static void model_advance(uint32_t len)
{
	mark(m.next, len, 1);
	m.next += len;
	while (m.next - m.head < RING && is_marked(m.next))
		m.next++;
}

/* Bytes beyond a gap */
static void do_out_of_order(void)
{
	uint32_t wnd = WINDOW - (uint32_t)(m.next - m.head);
	uint32_t near = test_below(&m.random, 2) ? wnd : MIN(wnd, 200000);
	uint32_t off, len;
	int rc;

	if (wnd < 2)
		return;
	off = 1 + test_below(&m.random, near - 1);
	len = 1 + test_below(&m.random, SEGMENT);
	len = MIN(len, wnd - off);
	if (!len)
		return;
	rc = tcp_rcvq_out_of_order(&m.c, &m.conn, seq_at(m.next + off),
				   bytes_at(m.next + off), len);
	if (rc) {
		CHECK(rc == -ENOSPC || rc == -ENOBUFS);
		m.dropped++;
		return;
	}
	mark(m.next + off, len, 1);
	m.latest[0] = m.next + off;
	m.latest[1] = m.latest[0] + len;
}

/* Bytes in order, some of which the socket takes at once */
static void do_in_order(void)
{
	uint32_t wnd = WINDOW - (uint32_t)(m.next - m.head);
	uint32_t len = 1 + test_below(&m.random, SEGMENT), took = 0, cut;
	struct iovec iov[3];

	len = MIN(len, wnd);
	if (!len)
		return;
	if (m.head == m.next)
		took = test_below(&m.random, 3) ? len :
						  test_below(&m.random, len);
	if (took == len) {
		tcp_rcvq_skip(&m.c, &m.conn, len);
	} else {
		cut = test_below(&m.random, len + 1);
		iov[0] = (struct iovec){ bytes_at(m.next), cut };
		iov[1] = (struct iovec){ bytes_at(m.next + cut), 0 };
		iov[2] = (struct iovec){ bytes_at(m.next + cut), len - cut };
		if (tcp_rcvq_in_order(&m.c, &m.conn, iov, 3, took)) {
			m.dropped++;
			len = took;
		} else {
			m.tcp.held += len - took;
		}
	}
	m.head += took;
	tcp_window_join(&m.c, &m.conn, len, UINT64_MAX);
	model_advance(len);
}

/* The socket takes some of what is held */
static void do_take(void)
{
	uint32_t held = (uint32_t)(m.next - m.head), n;
	struct iovec iov[512];
	uint64_t pos = m.head;
	unsigned max, entries;

	if (!held)
		return;
	max = test_below(&m.random, 2) ? 512 : 1 + test_below(&m.random, 4);
	entries = tcp_rcvq_iov(&m.c, &m.conn, iov, max);
	CHECK(entries && entries <= max);
	for (unsigned i = 0; i < entries; i++) {
		CHECK(!memcmp(iov[i].iov_base, bytes_at(pos), iov[i].iov_len));
		pos += iov[i].iov_len;
	}
	CHECK(pos <= m.next && (max < 512 || pos == m.next));

	n = (uint32_t)(pos - m.head);
	if (test_below(&m.random, 2))
		n = test_below(&m.random, n) + 1;
	mark(m.head, n, 0);
	tcp_rcvq_taken(&m.c, &m.conn, n);
	m.head += n;
}

/* Next position from @pos up to @end whose mark is @value */
static uint64_t find(uint64_t pos, uint64_t end, uint8_t value)
{
	while (pos < end && m.mark[pos % RING] != value)
		pos++;
	return pos;
}

static void check_ranges(void)
{
	struct seq_range got[RANGES];
	unsigned n = tcp_rcvq_ranges(&m.c, &m.conn, got, RANGES), seen = 0;
	uint64_t end = m.head + WINDOW, pos = m.next;

	while ((pos = find(pos, end, 1)) < end) {
		uint64_t stop = find(pos, end, 0);
		unsigned i = 0;

		while (i < n && got[i].start != seq_at(pos))
			i++;
		CHECK(i < n);
		CHECK_EQ(got[i].end, seq_at(stop));
		if (m.latest[0] >= pos && m.latest[1] <= stop)
			CHECK_EQ(i, 0); /* RFC 2018 section 4 */
		seen++;
		pos = stop;
	}
	CHECK_EQ(n, seen);
}

static void check(bool thorough)
{
	CHECK_EQ(m.conn.rcv_nxt, seq_at(m.next));
	CHECK_EQ(tcp_rcvq_held(&m.c, &m.conn), m.next - m.head);
	CHECK_EQ(m.tcp.held, m.next - m.head);
	if (thorough)
		check_ranges();
	if (m.head == m.next &&
	    !tcp_rcvq_ranges(&m.c, &m.conn, &(struct seq_range){ 0 }, 1))
		CHECK_EQ(m.tcp.chunks.used, 0);
}

/* Positions behind the head may be marked again when the ring comes round */
static void forget_taken(uint64_t from)
{
	if (m.head > from)
		mark(from, (uint32_t)(m.head - from), 0);
}

static void run(uint64_t seed, uint32_t start, uint32_t buffers, int count)
{
	model_init(seed, start, buffers);
	for (int i = 0; i < count; i++) {
		uint32_t dice = test_below(&m.random, 100);
		uint64_t from = m.head;

		open_window();
		if (dice < 45)
			do_out_of_order();
		else if (dice < 70)
			do_in_order();
		else
			do_take();
		forget_taken(from);
		check(i % 32 == 0);
	}
	model_free();
}

static void test_random_operations(void)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		run(seed, 0U - (uint32_t)seed * 1000000U, BUFFERS, 6000);
	CHECK_EQ(m.dropped > 0, 1); /* more gaps than are kept track of */
}

static void test_random_operations_across_the_wrap(void)
{
	for (uint64_t seed = 11; seed <= 14; seed++)
		run(seed, 0U - 50000U * (uint32_t)(seed - 10), BUFFERS, 300);
}

/* Buffers run out: what is refused is missing, what is kept is right */
static void test_random_operations_on_few_buffers(void)
{
	for (uint64_t seed = 21; seed <= 24; seed++) {
		run(seed, 0U - 3000000U, 12, 3000);
		CHECK(m.dropped > 0);
	}
}

/* Each byte goes in by itself, the last one first */
static void test_single_bytes_backwards(void)
{
	model_init(1, 0xfffffff0U, BUFFERS);
	open_window();
	for (unsigned i = 30; i > 0; i--)
		CHECK_EQ(tcp_rcvq_out_of_order(&m.c, &m.conn, seq_at(i),
					       bytes_at(i), 1),
			 0);
	CHECK_EQ(tcp_rcvq_ranges(&m.c, &m.conn, (struct seq_range[8]){ 0 }, 8),
		 1);
	tcp_rcvq_skip(&m.c, &m.conn, 1);
	tcp_window_join(&m.c, &m.conn, 1, UINT64_MAX);
	m.head = 1;
	m.next = 31;
	check(false);
	do_take();
	model_free();
}

/* The socket took past everything that was kept: no buffer stays behind */
static void test_passed_ranges_leave_nothing(void)
{
	model_init(1, 0xffff0000U, BUFFERS);
	open_window();
	CHECK_EQ(tcp_rcvq_out_of_order(&m.c, &m.conn, seq_at(100),
				       bytes_at(100), 50),
		 0);
	tcp_rcvq_skip(&m.c, &m.conn, 200);
	tcp_window_join(&m.c, &m.conn, 200, UINT64_MAX);
	CHECK_EQ(m.tcp.chunks.used, 0);
	CHECK_EQ(tcp_rcvq_held(&m.c, &m.conn), 0);
	m.head = m.next = 200;
	model_free();
}

/* A window full of bytes that no socket takes */
static void test_whole_window_held(void)
{
	model_init(1, 0x7ffffff0U, BUFFERS);
	open_window();
	for (uint64_t pos = WINDOW; pos > SEGMENT; pos -= SEGMENT)
		CHECK_EQ(tcp_rcvq_out_of_order(
				 &m.c, &m.conn, seq_at(pos - SEGMENT),
				 bytes_at(pos - SEGMENT), SEGMENT),
			 0);
	while (m.next < WINDOW) {
		struct iovec iov = { bytes_at(m.next),
				     MIN(SEGMENT, WINDOW - m.next) };

		CHECK_EQ(tcp_rcvq_in_order(&m.c, &m.conn, &iov, 1, 0), 0);
		m.tcp.held += iov.iov_len;
		tcp_window_join(&m.c, &m.conn, (uint32_t)iov.iov_len,
				UINT64_MAX);
		m.next = m.conn.rcv_nxt - m.start;
	}
	check(false);
	CHECK_EQ(tcp_rcvq_held(&m.c, &m.conn), WINDOW);
	while (m.head < m.next)
		do_take();
	CHECK_EQ(m.tcp.chunks.used, 0);
	model_free();
}

int main(void)
{
	struct test_random random = { .state = 42 };

	for (unsigned i = 0; i < PATTERN; i++)
		pattern[i] = (uint8_t)test_random64(&random);
	memcpy(pattern + PATTERN, pattern, PATTERN);
	memcpy(pattern + 2 * PATTERN, pattern, SEGMENT);

	RUN(test_single_bytes_backwards);
	RUN(test_passed_ranges_leave_nothing);
	RUN(test_whole_window_held);
	RUN(test_random_operations_across_the_wrap);
	RUN(test_random_operations);
	RUN(test_random_operations_on_few_buffers);
	return 0;
}
