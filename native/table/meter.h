/* SPDX-License-Identifier: GPL-2.0-or-later */
/* meter.h - Limits: how fast flows move, how much in all, and how many there are
 *
 * A meter belongs to a rule and counts for all of its flows together; that of
 * METER_GUEST counts for every flow of the guest. What is counted is payload, in
 * (towards the guest) and out, once however often it is sent again.
 *
 * Bytes a second are a bucket that fills with time, and holds what comes in
 * METER_BURST. A flow asks how much may move, and says what did. When there is
 * nothing it waits in the meter's line, and is called for again through the
 * ready list (ready.h) once there is enough to be worth it; a datagram is
 * dropped instead. Where there are no limits all of this costs one look at the
 * flow: meter_has().
 */
#ifndef PASSTPY_TABLE_METER_H
#define PASSTPY_TABLE_METER_H

#include "base/clock.h"
#include "table/flow_table.h"

#define METER_GUEST 0 /* the rule of the meter for everything */
#define METERS_MAX  1024
/* Twice this may go at once: what windows had promised, and what was saved
 * meanwhile. Datagrams have what is left of that: whoever sends them in bursts,
 * or finds us late, does not send again what was dropped. */
#define METER_BURST    (50 * NSEC_PER_MSEC)
#define METER_RATE_MAX 12500000000ULL /* bytes a second: 100 Gbit/s */

/** enum meter_dir - Directions, as the guest sees them */
enum meter_dir { METER_IN, METER_OUT, METER_DIRS };

/** struct meter_limits - What a rule allows; 0: any number
 * @rate:	Bytes a second, METER_RATE_MAX at most
 * @total:	Bytes
 * @flows:	Flows at a time
 * @new_flows:	New flows a second, after as many at once
 */
struct meter_limits {
	uint64_t rate[METER_DIRS];
	uint64_t total[METER_DIRS];
	uint32_t flows;
	uint32_t new_flows;
};

/** struct bucket - Something that comes with time
 * @rate:	How much a second, 0: any
 * @most:	How much it holds
 * @has:	How much is in it; below zero: it was taken in advance
 * @promised:	How much was taken by who has not moved it yet
 * @at_once:	How much may move at once, promised or not: twice @most, less
 *		what did
 * @filled:	ns until which it was filled
 */
struct bucket {
	uint64_t rate;
	uint64_t most;
	int64_t has;
	int64_t promised;
	int64_t at_once;
	uint64_t filled;
};

/** struct meter_line - Flows that wait, by index + 1 in the flow table
 * @passed:	Bytes of datagrams that went past them since they were called
 */
struct meter_line {
	uint32_t head;
	uint32_t tail;
	uint32_t count;
	uint64_t passed;
};

/** struct meter_counts - What it has counted
 * @used:	Bytes that moved
 * @dropped:	Datagrams that were dropped
 * @flows:	Flows that are open
 * @refused:	Flows that were refused
 * @closed:	Flows that ended because @used reached its limit
 */
struct meter_counts {
	uint64_t used[METER_DIRS];
	uint64_t dropped[METER_DIRS];
	uint32_t flows;
	uint64_t refused;
	uint64_t closed;
};

/** struct meter - Limits, and what is counted for them
 * @rule:	Id of the rule, or METER_GUEST
 * @listed:	The rule still is one; else it goes with its last flow
 * @spent:	@used has reached a total
 * @limits:	What is allowed
 * @bucket:	Bytes that may move now
 * @opening:	Flows that may begin now
 * @line:	Flows that wait for bytes
 * @counts:	What it has counted
 */
struct meter {
	uint32_t rule;
	bool listed;
	bool spent;
	struct meter_limits limits;
	struct bucket bucket[METER_DIRS];
	struct bucket opening;
	struct meter_line line[METER_DIRS];
	struct meter_counts counts;
};

/** struct meters - All of them
 * @top:	Meters at and above are unused
 * @next_at:	ns when a flow that waits may go on, or UINT64_MAX
 * @closing:	Flows of spent meters are still open, perhaps
 * @cursor:	Up to where they were closed
 * @meter:	Numbers begin at 1: 0 is "none"
 */
struct meters {
	uint32_t top;
	uint64_t next_at;
	bool closing;
	uint32_t cursor;
	struct meter meter[METERS_MAX + 1];
};

/* meter_has() - Is a flow under any limit? */
static inline bool meter_has(const struct flow *flow)
{
	return flow->f.meter[FLOW_METER_RULE] | flow->f.meter[FLOW_METER_GUEST];
}

/* Setting them */

/**
 * meters_set() - Limit the flows of a rule, or change its limits
 *
 * What was counted stays. Open flows come under it by flow_set_rule().
 *
 * Return: 0, or -ENOSPC: there are METERS_MAX
 */
int meters_set(struct flow_table *ft, uint32_t rule,
	       const struct meter_limits *limits, uint64_t now);

/* meters_clear() - The rule has no limits any more; no harm if it never had */
void meters_clear(struct flow_table *ft, uint32_t rule);

/* The life of a flow, for flow_table.c: which meters there are for its rule; it
 * is open; it is not any longer, or comes under others */
void meters_find(struct flow_table *ft, struct flow *flow);
void meters_enter(struct flow_table *ft, struct flow *flow);
void meters_leave(struct flow_table *ft, struct flow *flow);

/* meters_admit() - May another flow of this rule begin? Counted if not */
bool meters_admit(struct flow_table *ft, uint32_t rule, uint64_t now);

/**
 * meters_admit_open() - May an open flow come under this rule, as a new one of it?
 *
 * The meter for everything has it already.
 *
 * Return: 0; -EUSERS too many flows; -EDQUOT a total is reached. Counted if not
 */
int meters_admit_open(struct flow_table *ft, const struct flow *flow,
		      uint32_t rule, uint64_t now);

/* meters_end() - Has a flow to end, because a total is reached? Counted if so */
bool meters_end(struct flow_table *ft, const struct flow *flow);

/* Moving bytes. @from is the side that they come from. */

/**
 * meter_allow() - How much may move now
 * @want:	Bytes that could
 *
 * Return: bytes; 0: nothing, or others who wait are first. They may be more than
 * meter_left(): promises are not kept once a total is reached
 */
uint32_t meter_allow(struct flow_table *ft, const struct flow *flow,
		     unsigned from, uint32_t want, uint64_t now);

/* meter_most() - What may move at once at most */
uint32_t meter_most(const struct flow_table *ft, const struct flow *flow,
		    unsigned from);

/* meter_left() - Bytes until a total is reached, or UINT64_MAX */
uint64_t meter_left(const struct flow_table *ft, const struct flow *flow,
		    unsigned from);

/* meter_take() - Bytes are promised, or (below zero) the promise is over */
void meter_take(struct flow_table *ft, const struct flow *flow, unsigned from,
		int64_t bytes);

/* meter_count() - Bytes moved that were promised */
void meter_count(struct flow_table *ft, const struct flow *flow, unsigned from,
		 uint64_t bytes, uint64_t now);

/* meter_move() - Bytes moved */
static inline void meter_move(struct flow_table *ft, const struct flow *flow,
			      unsigned from, uint64_t bytes, uint64_t now)
{
	meter_take(ft, flow, from, (int64_t)bytes);
	meter_count(ft, flow, from, bytes, now);
}

/**
 * meter_datagrams() - Count datagrams of which some may have to be dropped
 * @bytes:	Payload of all
 * @size:	Payload of each, the last may have less
 *
 * Return: bytes of those that may move, from the first on
 */
uint32_t meter_datagrams(struct flow_table *ft, const struct flow *flow,
			 unsigned from, uint32_t bytes, uint32_t size,
			 uint64_t now);

/**
 * meter_wait() - Have the side called for again when more may move
 *
 * By ready_add(); at once if more may move already, never if a total is reached.
 */
void meter_wait(struct flow_table *ft, struct flow *flow, unsigned from,
		uint64_t now);

/* meters_wake() - Time has passed: call for those who waited long enough */
void meters_wake(struct flow_table *ft, uint64_t now);

/* meters_check() - Assert every invariant; for tests and debug builds */
void meters_check(const struct flow_table *ft);

#endif /* PASSTPY_TABLE_METER_H */
