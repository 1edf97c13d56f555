/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The packet pool: who gets which buffer, and which pages stay */

#include <string.h>
#include <sys/mman.h>

#include "table/pool.h"
#include "test.h"

#define SIZE (64 * 1024)

/* is_resident() - Does the first page of a buffer take memory? */
static int is_resident(const struct pool *p, uint32_t i)
{
	unsigned char pages[SIZE / 4096];

	CHECK(!mincore(pool_at(p, i), SIZE, pages));
	return pages[0] & 1;
}

static void test_last_freed_is_handed_out_first(void)
{
	struct pool p;

	CHECK_EQ(pool_init(&p, SIZE, 100), 0);
	for (uint32_t i = 0; i < 10; i++)
		CHECK_EQ(pool_get(&p), i);
	pool_put(&p, 4);
	pool_put(&p, 7);
	CHECK_EQ(p.used, 8);
	CHECK_EQ(pool_get(&p), 7);
	CHECK_EQ(pool_get(&p), 4);
	CHECK_EQ(pool_get(&p), 10);
	pool_free(&p);
}

static void test_empty_pool_says_so(void)
{
	struct pool p;

	CHECK_EQ(pool_init(&p, SIZE, 3), 0);
	for (int i = 0; i < 3; i++)
		CHECK(pool_get(&p) != POOL_NONE);
	CHECK_EQ(pool_get(&p), POOL_NONE);
	pool_put(&p, 1);
	CHECK_EQ(pool_get(&p), 1);
	pool_free(&p);
	pool_free(&p); /* twice is harmless */
}

static void test_buffers_do_not_overlap(void)
{
	struct pool p;

	CHECK_EQ(pool_init(&p, SIZE, 50), 0);
	for (uint32_t i = 0; i < 50; i++)
		memset(pool_at(&p, pool_get(&p)), (int)i, SIZE);
	for (uint32_t i = 0; i < 50; i++)
		CHECK(pool_at(&p, i)[0] == i && pool_at(&p, i)[SIZE - 1] == i);
	pool_free(&p);
}

static void test_pages_of_many_free_buffers_are_given_back(void)
{
	uint32_t resident = 0;
	struct pool p;

	CHECK_EQ(pool_init(&p, SIZE, 1000), 0);
	for (uint32_t i = 0; i < 1000; i++)
		pool_at(&p, pool_get(&p))[0] = 1;
	for (uint32_t i = 0; i < 1000; i++)
		pool_put(&p, i);
	for (uint32_t i = 0; i < 1000; i++)
		resident += (uint32_t)is_resident(&p, i);
	CHECK_EQ(resident, p.warm);
	CHECK(resident < 130);
	/* The next ones to be handed out are the warm ones */
	for (uint32_t warm = p.warm; warm; warm--)
		CHECK(is_resident(&p, pool_get(&p)));
	CHECK(!is_resident(&p, pool_get(&p)));
	pool_free(&p);
}

static void test_random_gets_and_puts(void)
{
	struct test_random r = { 5 };
	uint32_t held[300], n = 0;
	struct pool p;

	CHECK_EQ(pool_init(&p, SIZE, 300), 0);
	for (int op = 0; op < 100000; op++) {
		uint32_t i;

		if (test_below(&r, 2)) {
			i = pool_get(&p);
			CHECK_EQ(i == POOL_NONE, n == 300);
			if (i == POOL_NONE)
				continue;
			CHECK(!*(uint32_t *)(void *)pool_at(&p, i));
			*(uint32_t *)(void *)pool_at(&p, i) = i + 1;
			held[n++] = i;
		} else if (n) {
			uint32_t k = test_below(&r, n);

			i = held[k];
			held[k] = held[--n];
			CHECK_EQ(*(uint32_t *)(void *)pool_at(&p, i), i + 1);
			*(uint32_t *)(void *)pool_at(&p, i) = 0;
			pool_put(&p, i);
		}
		CHECK_EQ(p.used, n);
	}
	pool_free(&p);
}

int main(void)
{
	RUN(test_last_freed_is_handed_out_first);
	RUN(test_empty_pool_says_so);
	RUN(test_buffers_do_not_overlap);
	RUN(test_pages_of_many_free_buffers_are_given_back);
	RUN(test_random_gets_and_puts);
	return 0;
}
