/* SPDX-License-Identifier: GPL-2.0-or-later */
/* backlog.h - Bytes that wait for a guest that takes nothing for now
 *
 * A queue of bytes in one piece of memory that is touched on demand. How long
 * it gets is bounded by what a handler reads before it sees that the tap is
 * blocked (CTX_BUFS of CTX_BUF_SIZE), twice: once for what was collected before
 * the guest was found full, once for what comes on top.
 */
#ifndef PASSTPY_LINK_BACKLOG_H
#define PASSTPY_LINK_BACKLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BACKLOG_MAX (4 << 20) /* bytes */

/** struct backlog
 * @buf:	BACKLOG_MAX bytes
 * @off:	First byte that waits
 * @end:	End of what waits
 */
struct backlog {
	uint8_t *buf;
	size_t off;
	size_t end;
};

int backlog_init(struct backlog *b); /* 0 or -ENOMEM */
void backlog_free(struct backlog *b);

static inline size_t backlog_len(const struct backlog *b)
{
	return b->end - b->off;
}

/* backlog_head() - The bytes that wait, backlog_len() of them; those of one
 * backlog_add() stay in one piece */
static inline uint8_t *backlog_head(const struct backlog *b)
{
	return b->buf + b->off;
}

/* backlog_add() - Room for @len more bytes at the end, or NULL: it is full */
uint8_t *backlog_add(struct backlog *b, size_t len);

/* backlog_drop() - The first @len bytes went to the guest */
void backlog_drop(struct backlog *b, size_t len);

/* backlog_clear() - Forget everything */
static inline void backlog_clear(struct backlog *b)
{
	b->off = b->end = 0;
}

#endif /* PASSTPY_LINK_BACKLOG_H */
