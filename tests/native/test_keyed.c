/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers found again by a hash: random use against a plain array */

#include <stdbool.h>

#include "table/keyed.h"
#include "test.h"

#define MAX    300
#define HASHES 40 /* few: chains are long, and differ in what shares them */

static struct keyed k;

/* is_chained() - Is a number found by its hash, and once only? */
static bool is_chained(uint32_t hash, uint32_t number)
{
	unsigned found = 0;

	for (uint32_t i = keyed_first(&k, hash); i != KEYED_NONE;
	     i = keyed_next(&k, i))
		found += i == number;
	return found == 1;
}

static void test_numbers_are_found_by_their_hash(void)
{
	uint32_t hash_of[MAX];
	bool used[MAX] = { 0 };
	struct test_random rnd = { 7 };
	uint32_t count = 0;

	CHECK_EQ(keyed_init(&k, MAX), 0);
	for (unsigned step = 0; step < 20000; step++) {
		uint32_t hash = test_below(&rnd, HASHES) * 0x01000193U;
		uint32_t i = test_below(&rnd, MAX);

		if (used[i]) {
			CHECK(is_chained(hash_of[i], i));
			keyed_del(&k, hash_of[i], i);
			CHECK(!is_chained(hash_of[i], i));
			used[i] = false;
			count--;
		} else {
			i = keyed_add(&k, hash);
			CHECK(i < MAX && !used[i]);
			used[i] = true;
			hash_of[i] = hash;
			count++;
			CHECK(is_chained(hash, i));
		}
		CHECK_EQ(k.used, count);
	}
	keyed_free(&k);
}

static void test_all_numbers_can_be_had_and_no_more(void)
{
	bool seen[MAX] = { 0 };

	CHECK_EQ(keyed_init(&k, MAX), 0);
	for (uint32_t n = 0; n < MAX; n++) {
		uint32_t i = keyed_add(&k, n);

		CHECK(i < MAX && !seen[i]);
		seen[i] = true;
	}
	CHECK_EQ(keyed_add(&k, 1), KEYED_NONE);
	keyed_del(&k, 7, 7);
	CHECK_EQ(keyed_add(&k, 1), 7);
	keyed_free(&k);
}

int main(void)
{
	RUN(test_numbers_are_found_by_their_hash);
	RUN(test_all_numbers_can_be_had_and_no_more);
	return 0;
}
