/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice_hold.c - Bytes that were read from one socket and not taken by the other
 *
 * They lie in chunks that TCP lends, one list for each direction of a flow.
 */

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "proto/splice.h"
#include "proto/tcp.h"

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

size_t splice_room(const struct ctx *c)
{
	const struct pool *p = tcp_chunks(c);

	return p->max > p->used ? (size_t)(p->max - p->used) * SPLICE_CHUNK : 0;
}

void splice_hold(struct ctx *c, struct splice_dir *d, const uint8_t *data,
		 uint32_t len)
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

void splice_drop(struct ctx *c, struct splice_dir *d, uint32_t len)
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

unsigned splice_held_iov(const struct ctx *c, const struct splice_dir *d,
			 struct iovec *iov, unsigned max, uint32_t *ret_len)
{
	unsigned n = 0;

	*ret_len = 0;
	for (uint32_t i = d->head; i != POOL_NONE && n < max; n++) {
		struct splice_chunk *chunk = chunk_at(c, i);

		iov[n].iov_base = chunk->data + chunk->start;
		iov[n].iov_len = chunk->end - chunk->start;
		*ret_len += chunk->end - chunk->start;
		i = chunk->next;
	}
	return n;
}

void splice_release(struct ctx *c, struct flow *flow, unsigned from)
{
	struct splice_dir *d = &splice_conn(flow)->dir[from];

	splice_drop(c, d, d->held);
}
