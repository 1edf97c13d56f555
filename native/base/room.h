/* SPDX-License-Identifier: GPL-2.0-or-later */
/* room.h - Reserves address space, and says how many of something fit there
 *
 * Tables and pools reserve addresses for the most that they may hold, and touch
 * pages on demand. A limit of the process (ulimit -v) counts what is reserved:
 * under one, each takes a share and holds less.
 */
#ifndef PASSTPY_BASE_ROOM_H
#define PASSTPY_BASE_ROOM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "base/macros.h"
#include "base/sys.h"

#define ROOM_SHARE 10 /* what one may take: this part of the limit */

/**
 * room_max() - How many to reserve addresses for
 * @size:	Bytes of one
 * @max:	As many as wanted, where nothing is limited
 *
 * Return: @max, or fewer; at least 1
 */
static inline uint32_t room_max(size_t size, uint32_t max)
{
	struct rlimit limit;
	rlim_t n;

	if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return max;
	n = limit.rlim_cur / ROOM_SHARE / size;
	return n ? (uint32_t)MIN(n, (rlim_t)max) : 1;
}

/* room_reserve() - Address space of @len bytes, or MAP_FAILED. A macro: each use
 * is a place of its own that a test can have fail (sys.h) */
#define room_reserve(len)                           \
	sys_mmap(NULL, len, PROT_READ | PROT_WRITE, \
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)

#endif /* PASSTPY_BASE_ROOM_H */
