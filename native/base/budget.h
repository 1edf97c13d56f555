/* SPDX-License-Identifier: GPL-2.0-or-later */
/* budget.h - How much work may be done before somebody else has a turn
 *
 * Work is counted, not timed: each thing done has a price, about what it costs
 * in nanoseconds on an ordinary machine. So a test sees the same on any machine
 * and at any load, and nobody reads a clock within a round.
 *
 * A round serves one kind of source after the other (the tap, flows that were
 * not finished, events, timers). Each kind has an allowance; those of a few
 * rounds are divided among the sources that are there. Whoever is served spends
 * from its share and stops when that is gone: what is left over waits for the
 * next round.
 */
#ifndef PASSTPY_BASE_BUDGET_H
#define PASSTPY_BASE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

#define WORK_CALL     1000 /* a system call on a socket or the tap */
#define WORK_DATAGRAM 250  /* each datagram of a super-segment */
#define WORK_SEGMENT  100  /* each segment of a TCP super-segment */
#define WORK_FRAME    250  /* a frame looked at */
#define WORK_TIMER    250  /* a deadline looked at */
#define WORK_CLOSE    5000 /* what a closed flow costs when it is freed */
#define WORK_LOOK     50   /* a flow looked at, in a list of those that wait */

#define WORK_SHARE     250000 /* of one source, if it is alone or nearly */
#define WORK_SHARE_MIN 20000  /* of one of many */
#define WORK_SHARE_LOSSY \
	60000		  /* of datagrams, while others stand behind them */
#define WORK_ROUND 500000 /* of all sources of a kind in a round */
/* Rounds until each of many sources was served: at most, if their shares are not
 * the smallest. One would do, but a larger share is fewer calls a byte */
#define WORK_ROUNDS 2
/* Done for open flows before Python decides about BORDER_MISSES new ones, and in
 * a flood of those */
#define WORK_PYTHON	    500000
#define WORK_PYTHON_FLOODED 1500000
/* Of a turn, whatever the clock says: a turn of virtual time ends by it */
#define WORK_TURN 2000000

/** struct budget - Work that is left
 * @share:	For the source that is served now; below zero: it did more
 * @each:	What the next source gets
 * @left:	For sources of this kind in this round
 * @turn:	Spent in this turn
 */
struct budget {
	int64_t share;
	int64_t each;
	int64_t left;
	uint64_t turn;
};

/* work_bytes() - Price of bytes copied once between us and the kernel */
static inline uint64_t work_bytes(uint64_t bytes)
{
	return bytes / 4;
}

/* budget_divide() - Share what is left among so many sources */
static inline void budget_divide(struct budget *b, uint32_t sources)
{
	/* Mostly there is one: do not wait for a division */
	int64_t each = sources > 1 ? WORK_ROUNDS * b->left / (int64_t)sources :
				     b->left;

	b->each = MIN(each, (int64_t)WORK_SHARE);
	b->each = MAX(b->each, (int64_t)WORK_SHARE_MIN);
}

/* budget_open() - Sources of another kind are served from now on
 * @sources:	How many want to be; each may come again in other rounds */
static inline void budget_open(struct budget *b, int64_t allowance,
			       uint32_t sources)
{
	b->left = allowance;
	budget_divide(b, sources);
}

/* budget_next() - Begin with a source; false if its kind used up everything */
static inline bool budget_next(struct budget *b)
{
	if (b->left <= 0)
		return false;
	b->share = b->each;
	return true;
}

/* budget_cap() - The source that is served now may do no more than this */
static inline void budget_cap(struct budget *b, int64_t share)
{
	b->share = MIN(b->share, share);
}

static inline void budget_spend(struct budget *b, uint64_t price)
{
	b->share -= (int64_t)price;
	b->left -= (int64_t)price;
	b->turn += price;
}

/* budget_is_spent() - Is it time to stop? Ask after a piece of work, not
 * before the first: everybody moves on a little, however small its share */
static inline bool budget_is_spent(const struct budget *b)
{
	return b->share <= 0;
}

/* budget_bytes() - How many bytes to read at a time so that reading them and
 * writing them again does not exceed the share by much; at least @min */
static inline uint32_t budget_bytes(const struct budget *b, uint32_t min,
				    uint32_t max)
{
	int64_t bytes = MAX(b->share, 0) * 2;

	return (uint32_t)MIN(MAX(bytes, (int64_t)min), (int64_t)max);
}

#endif /* PASSTPY_BASE_BUDGET_H */
