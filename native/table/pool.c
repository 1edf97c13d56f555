/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pool.c - Fixed-size buffers from one reserved address range
 *
 * The free list is a stack: its first @warm buffers still have their pages,
 * those below do not. When twice the wanted number is warm, the lower half
 * goes cold in one walk, so that the walk costs a constant for each put.
 */

#include "table/pool.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "base/poison.h"
#include "base/room.h"
#include "base/sys.h"

#define POOL_WARM_BYTES (4U << 20) /* pages kept for the next burst */
#define POOL_WARM_MIN	8	   /* buffers kept at least */

/**
 * pool_init() - Reserve the buffers
 * @p:		Filled
 * @size:	Bytes of a buffer, multiple of the page size
 * @max:	Buffers; fewer where address space is limited
 *
 * Return: 0, or -ENOMEM
 */
int pool_init(struct pool *p, size_t size, uint32_t max)
{
	void *base, *next;

	assert(size && max && max < POOL_NONE);

	max = room_max(size, max);
	base = room_reserve(size * max);
	if (base == MAP_FAILED)
		return -ENOMEM;
	next = room_reserve(sizeof(*p->next) * max);
	if (next == MAP_FAILED) {
		munmap(base, size * max);
		return -ENOMEM;
	}
	*p = (struct pool){
		.base = base,
		.next = next,
		.size = size,
		.max = max,
		.free = POOL_NONE,
	};
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p->base)
		return;
	unpoison(p->base, p->size * p->top);
	munmap(p->base, p->size * p->max);
	munmap(p->next, sizeof(*p->next) * p->max);
	*p = (struct pool){ .free = POOL_NONE };
}

uint32_t pool_get(struct pool *p)
{
	uint32_t i = p->free;

	if (i != POOL_NONE) {
		p->free = p->next[i];
		if (p->warm)
			p->warm--;
	} else if (p->top < p->max) {
		i = p->top++;
	} else {
		return POOL_NONE;
	}
	p->used++;
	unpoison(pool_at(p, i), p->size);
	return i;
}

/* pool_cool() - Keep the first @keep free buffers, give back other pages */
static void pool_cool(struct pool *p, uint32_t keep)
{
	uint32_t i = p->free;
	uint32_t n;

	for (n = 0; n < keep; n++)
		i = p->next[i];
	for (; n < p->warm; n++, i = p->next[i])
		sys_madvise(pool_at(p, i), p->size, MADV_DONTNEED);
	p->warm = keep;
}

void pool_put(struct pool *p, uint32_t i)
{
	uint32_t keep =
		(uint32_t)MAX(POOL_WARM_BYTES / p->size, (size_t)POOL_WARM_MIN);

	assert(i < p->top && p->used);

	poison(pool_at(p, i), p->size);
	p->next[i] = p->free;
	p->free = i;
	p->used--;
	if (++p->warm >= 2 * keep)
		pool_cool(p, keep);
}
