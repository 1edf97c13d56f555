/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer.h - One timing wheel for all flows, one timerfd
 *
 * Each flow has one deadline; handlers with several causes keep the earliest.
 * Moving a deadline later costs nothing: the wheel finds out when the old one
 * fires, and puts the flow back. Deadlines are rounded up to a tick: a flow
 * never fires early, and at most TIMER_TICK late.
 */
#ifndef PASSTPY_TABLE_TIMER_H
#define PASSTPY_TABLE_TIMER_H

#include <stdint.h>

#include "base/clock.h"
#include "table/flow.h"

#define TIMER_NONE   0xffffffffU
#define TIMER_LEVELS 5
#define TIMER_SLOTS  64
#define TIMER_TICK   NSEC_PER_MSEC /* resolution, ns */

/** struct timers - Hierarchical wheel over the entries of a flow table
 * @flows:	Base of the entries (set by flow_table_init())
 * @fd:		timerfd, or -1 with virtual time
 * @now:	ns, latest time timer_expire() was told
 * @tick:	Ticks processed up to
 * @armed:	ns the timerfd is set to, or 0
 * @occupied:	Bitmap of non-empty slots per level
 * @slot:	First flow index of each slot, or TIMER_NONE
 * @due:	First flow whose time has come, or TIMER_NONE
 * @queued:	Number of flows in the wheel and due
 */
struct timers {
	struct flow *flows;
	int fd;
	uint64_t now;
	uint64_t tick;
	uint64_t armed;
	uint64_t occupied[TIMER_LEVELS];
	uint32_t slot[TIMER_LEVELS][TIMER_SLOTS];
	uint32_t due;
	uint32_t queued;
};

/* timers_init() - An empty wheel; flow_table_init() sets @flows, at any time */
void timers_init(struct timers *t, int fd, uint64_t now);

/**
 * timer_set() - Set, move or (0) cancel the deadline of a flow
 * @deadline:	ns; in the past: fires at the next timer_expire()
 */
void timer_set(struct timers *t, struct flow *flow, uint64_t deadline);

/* timer_expire() - Take out one flow whose deadline passed, or NULL
 * The caller calls until NULL; @timer_at of a returned flow is 0. */
struct flow *timer_expire(struct timers *t, uint64_t now);

/* timer_next() - ns when something may fire (never too late), or UINT64_MAX */
uint64_t timer_next(const struct timers *t);

/* timer_arm() - Have the timerfd fire at timer_next() at the latest
 * @latest:	Wake up by then for another reason, or UINT64_MAX */
void timer_arm(struct timers *t, uint64_t latest);

/* timer_ack() - The timerfd is readable: drain it, so that it can be armed */
void timer_ack(struct timers *t);

/* timers_check() - Assert every invariant; for tests and debug builds
 * @top:	Entries of the flow table from here on are free */
void timers_check(const struct timers *t, uint32_t top);

#endif /* PASSTPY_TABLE_TIMER_H */
