/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iov.h - Cutting scattered bytes without copying them */
#ifndef PASSTPY_BASE_IOV_H
#define PASSTPY_BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/**
 * iov_take() - Refer to the next @len bytes of scattered ones
 * @out:	Filled; room for as many entries as @iov has left
 * @iov:	Where the bytes are
 * @pos:	Entry of @iov to start at; moved on
 * @off:	Bytes of that entry that were taken before; moved on
 * @len:	Bytes to take, no more than there are
 *
 * Return: entries filled in @out
 */
unsigned iov_take(struct iovec *out, const struct iovec *iov, unsigned *pos,
		  size_t *off, size_t len);

#endif /* PASSTPY_BASE_IOV_H */
