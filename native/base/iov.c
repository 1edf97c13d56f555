/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iov.c - Cutting scattered bytes without copying them */

#include "base/iov.h"

#include <stdint.h>

#include "base/macros.h"

unsigned iov_take(struct iovec *out, const struct iovec *iov, unsigned *pos,
		  size_t *off, size_t len)
{
	unsigned n = 0;

	while (len) {
		size_t piece = MIN(iov[*pos].iov_len - *off, len);

		if (piece) {
			out[n].iov_base = (uint8_t *)iov[*pos].iov_base + *off;
			out[n++].iov_len = piece;
			len -= piece;
			*off += piece;
		}
		if (*off == iov[*pos].iov_len) {
			(*pos)++;
			*off = 0;
		}
	}
	return n;
}
