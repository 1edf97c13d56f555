/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pool.h - Fixed-size buffers from one reserved address range
 *
 * Pages are touched on demand; the most recently freed buffer is handed out
 * first; when many are free their pages go back to the kernel.
 */
#ifndef PASSTPY_TABLE_POOL_H
#define PASSTPY_TABLE_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_NONE 0xffffffffU

/** struct pool
 * @base:	Reserved range, @max buffers of @size bytes
 * @next:	Free list links, by index
 * @size:	Bytes of a buffer, multiple of the page size
 * @max:	Buffers at most
 * @top:	Buffers at and above were never used
 * @free:	First of the free list, or POOL_NONE
 * @used:	Buffers handed out
 * @warm:	Free buffers whose pages were not given back, the first ones
 */
struct pool {
	uint8_t *base;
	uint32_t *next;
	size_t size;
	uint32_t max;
	uint32_t top;
	uint32_t free;
	uint32_t used;
	uint32_t warm;
};

int pool_init(struct pool *p, size_t size, uint32_t max);
void pool_free(struct pool *p);
uint32_t pool_get(struct pool *p); /* index or POOL_NONE */
void pool_put(struct pool *p, uint32_t i);

static inline uint8_t *pool_at(const struct pool *p, uint32_t i)
{
	return p->base + (size_t)i * p->size;
}

#endif /* PASSTPY_TABLE_POOL_H */
