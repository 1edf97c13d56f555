/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters.h - Enum of counters.def, and the array that counts */
#ifndef PASSTPY_BASE_COUNTERS_H
#define PASSTPY_BASE_COUNTERS_H

#include <stdint.h>

enum counter {
#define COUNTER(name, meaning) CNT_##name,
#include "base/counters.def"
#undef COUNTER
	CNT_NUM
};

/** struct counters - Monotonic counts, one writer (the datapath) */
struct counters {
	uint64_t n[CNT_NUM];
};

extern const char *const counter_names[CNT_NUM]; /* lower case */
extern const char *const counter_meanings[CNT_NUM];

static inline void count(struct counters *c, enum counter i)
{
	c->n[i]++;
}

static inline void count_n(struct counters *c, enum counter i, uint64_t n)
{
	c->n[i] += n;
}

/* count_max() - Keep the largest value seen */
static inline void count_max(struct counters *c, enum counter i, uint64_t n)
{
	if (n > c->n[i])
		c->n[i] = n;
}

#endif /* PASSTPY_BASE_COUNTERS_H */
