/* SPDX-License-Identifier: GPL-2.0-or-later */
/* backlog.c - Bytes that wait for a guest that takes nothing for now */

#include "link/backlog.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

int backlog_init(struct backlog *b)
{
	*b = (struct backlog){ .buf = sys_malloc(BACKLOG_MAX) };
	return b->buf ? 0 : -ENOMEM;
}

void backlog_free(struct backlog *b)
{
	free(b->buf);
	*b = (struct backlog){ .buf = NULL };
}

uint8_t *backlog_add(struct backlog *b, size_t len)
{
	if (len > BACKLOG_MAX - b->end) {
		memmove(b->buf, backlog_head(b), backlog_len(b));
		b->end -= b->off;
		b->off = 0;
	}
	if (len > BACKLOG_MAX - b->end)
		return NULL;
	b->end += len;
	return b->buf + b->end - len;
}

void backlog_drop(struct backlog *b, size_t len)
{
	assert(len <= backlog_len(b));
	b->off += len;
	if (b->off == b->end)
		backlog_clear(b);
}
