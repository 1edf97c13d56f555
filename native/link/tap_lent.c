/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_lent.c - Payload that was lent to the tap is not touched: debug builds */

#include "link/tap_lent.h"

#ifdef PASSTPY_DEBUG

#include <errno.h>
#include <stdlib.h>

#include "base/macros.h"
#include "base/sys.h"

#define LENT_MAX 4096 /* pieces remembered at a time */

/** struct lent - One piece of payload
 * @base:	Where it lies
 * @len:	Its bytes
 * @sum:	Of them, when it was lent
 */
struct lent {
	const uint8_t *base;
	size_t len;
	uint64_t sum;
};

/** struct tap_lent
 * @n:		Pieces
 * @piece:	What is lent
 */
struct tap_lent {
	unsigned n;
	struct lent piece[LENT_MAX];
};

int tap_lent_init(struct tap *t)
{
	t->lent = sys_calloc(1, sizeof(*t->lent));
	return t->lent ? 0 : -ENOMEM;
}

void tap_lent_free(struct tap *t)
{
	free(t->lent);
	t->lent = NULL;
}

/* sum() - FNV-1a over words, and over the bytes that make no word */
static uint64_t sum(const uint8_t *p, size_t len)
{
	uint64_t h = 0xcbf29ce484222325, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = (h ^ word) * 0x100000001b3;
	}
	while (len--)
		h = (h ^ *p++) * 0x100000001b3;
	return h;
}

void tap_lent_add(struct tap *t, const struct iovec *payload, unsigned n)
{
	struct tap_lent *l = t->lent;

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *base = payload[i].iov_base;
		size_t len = payload[i].iov_len;

		if (l->n == LENT_MAX)
			tap_lent_check(t);
		l->piece[l->n++] = (struct lent){ base, len, sum(base, len) };
	}
}

void tap_lent_check(struct tap *t)
{
	struct tap_lent *l = t->lent;

	for (unsigned i = 0; i < l->n; i++)
		assert(sum(l->piece[i].base, l->piece[i].len) ==
		       l->piece[i].sum);
	l->n = 0;
}

#endif /* PASSTPY_DEBUG */
