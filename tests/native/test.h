/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test.h - All that a C unit test needs: a check, a random number, a list
 *
 * A program is a test file; its functions state one fact each. The first check
 * that fails says where, and ends the program with status 1.
 */
#ifndef PASSTPY_TESTS_TEST_H
#define PASSTPY_TESTS_TEST_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond)                                           \
	do {                                                  \
		if (!(cond))                                  \
			test_fail(__FILE__, __LINE__, #cond); \
	} while (0)

#define CHECK_EQ(got, want)                                      \
	test_check_eq(__FILE__, __LINE__, #got, (uint64_t)(got), \
		      (uint64_t)(want))

#ifdef __SANITIZE_ADDRESS__
/* However a program is started: what a function leaves behind stays poisoned */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_stack_use_after_return=1";
}
#endif

/* RUN() - Call a test function, and name it on standard output */
#define RUN(test)                      \
	do {                           \
		printf("%s\n", #test); \
		test();                \
	} while (0)

static inline _Noreturn void test_fail(const char *file, int line,
				       const char *what)
{
	fflush(stdout);
	fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
	exit(1);
}

static inline void test_check_eq(const char *file, int line, const char *what,
				 uint64_t got, uint64_t want)
{
	if (got == want)
		return;
	fflush(stdout);
	fprintf(stderr,
		"%s:%d: failed: %s is %" PRIu64 " (0x%" PRIx64
		"), wanted %" PRIu64 " (0x%" PRIx64 ")\n",
		file, line, what, got, got, want, want);
	exit(1);
}

/** struct test_random - Repeatable random numbers (xorshift64*, Vigna 2016) */
struct test_random {
	uint64_t state;
};

static inline uint64_t test_random64(struct test_random *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1dULL;
}

/* test_below() - A number from 0 to @n - 1 */
static inline uint32_t test_below(struct test_random *r, uint32_t n)
{
	return (uint32_t)((test_random64(r) >> 32) * n >> 32);
}

#endif /* PASSTPY_TESTS_TEST_H */
