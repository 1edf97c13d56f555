/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clock.h - Units of time. Only core/ and py/ may read the clock. */
#ifndef PASSTPY_BASE_CLOCK_H
#define PASSTPY_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_USEC 1000ULL
#define NSEC_PER_MSEC 1000000ULL
#define NSEC_PER_SEC  1000000000ULL

/* clock_now() - CLOCK_MONOTONIC in nanoseconds */
static inline uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* clock_used() - What this thread has had of a processor, ns; a system call */
static inline uint64_t clock_used(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

#endif /* PASSTPY_BASE_CLOCK_H */
