/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test.h - All that a C unit test needs: a check, a random number, a list
 *
 * A program is a test file; its functions state one fact each. The first check
 * that fails says where, and ends the program with status 1.
 */
#ifndef PASSTPY_TESTS_TEST_H
#define PASSTPY_TESTS_TEST_H

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/poison.h"

#define CHECK(cond)                                           \
	do {                                                  \
		if (!(cond))                                  \
			test_fail(__FILE__, __LINE__, #cond); \
	} while (0)

#define CHECK_EQ(got, want)                                      \
	test_check_eq(__FILE__, __LINE__, #got, (uint64_t)(got), \
		      (uint64_t)(want))

#if POISON_WORKS
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

/* wait_readable() - Until there is something to read, or to be told by epoll
 *
 * What was sent over loopback need not have arrived when send() returns: a kernel
 * that is busy has a thread of its own deliver it, which waits for a processor.
 */
static inline void wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	CHECK_EQ(poll(&p, 1, 60 * 1000), 1);
}

/* count_fds() - Open descriptors, to find those that leak */
static inline unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/** struct test_tape - Choices that a fuzzer made, a few bytes each
 * @at:		Where the next one is; NULL: numbers are random
 * @end:	Behind the last one: all further choices are 0
 */
static struct test_tape {
	const uint8_t *at;
	const uint8_t *end;
} test_tape;

static inline uint64_t test_tape_take(unsigned bytes)
{
	uint64_t n = 0;

	while (bytes-- && test_tape.at < test_tape.end)
		n = n << 8 | *test_tape.at++;
	return n;
}

/** struct test_random - Repeatable random numbers (xorshift64*, Vigna 2016), or
 * those of the tape */
struct test_random {
	uint64_t state;
};

static inline uint64_t test_random64(struct test_random *r)
{
	if (test_tape.at)
		return test_tape_take(8);
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1dULL;
}

/* test_below() - A number from 0 to @n - 1 */
static inline uint32_t test_below(struct test_random *r, uint32_t n)
{
	if (test_tape.at)
		return (uint32_t)test_tape_take(n <= 1	     ? 0 :
						n <= 256     ? 1 :
						n <= 1 << 16 ? 2 :
							       4) %
		       (n ? n : 1);
	return (uint32_t)((test_random64(r) >> 32) * n >> 32);
}

#endif /* PASSTPY_TESTS_TEST_H */
