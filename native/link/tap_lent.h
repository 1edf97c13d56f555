/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_lent.h - Payload that was lent to the tap is not touched: debug builds
 *
 * A batch refers to its callers' bytes until it ends. A caller that writes
 * there in between sends wrong ones, and only through a backend that refers to
 * them. So debug builds take a sum of all that is lent, whatever the backend,
 * and compare it before it is sent: whoever breaks the rule dies at once.
 */
#ifndef PASSTPY_LINK_TAP_LENT_H
#define PASSTPY_LINK_TAP_LENT_H

#include "link/tap.h"

#ifdef PASSTPY_DEBUG

int tap_lent_init(struct tap *t); /* 0 or -ENOMEM */
void tap_lent_free(struct tap *t);

/* tap_lent_add() - These bytes are to stay until tap_lent_check() */
void tap_lent_add(struct tap *t, const struct iovec *payload, unsigned n);

/* tap_lent_check() - They did, or this does not return; they are given back */
void tap_lent_check(struct tap *t);

#else

static inline int tap_lent_init(struct tap *t)
{
	(void)t;
	return 0;
}

static inline void tap_lent_free(struct tap *t)
{
	(void)t;
}

static inline void tap_lent_add(struct tap *t, const struct iovec *payload,
				unsigned n)
{
	(void)t;
	(void)payload;
	(void)n;
}

static inline void tap_lent_check(struct tap *t)
{
	(void)t;
}

#endif

#endif /* PASSTPY_LINK_TAP_LENT_H */
