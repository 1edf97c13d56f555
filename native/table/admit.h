/* SPDX-License-Identifier: GPL-2.0-or-later */
/* admit.h - Who may ask Python for something, and how often
 *
 * A miss, or a frame for a service, costs a hundred times what a packet of an
 * open flow does. Token buckets bound both, before anything is spent on them:
 * the guest has one for its flows and one for each kind of frame that services
 * answer; what comes from outside has one for each listener and one for each
 * remote address. Of the flow table and of descriptors the outside may have
 * one half; near that, and near the end of either, idle datagram flows go. UDP
 * flows of one socket of the guest share one of ours: of these there may be as
 * many as the table has room for.
 */
#ifndef PASSTPY_TABLE_ADMIT_H
#define PASSTPY_TABLE_ADMIT_H

#include "base/clock.h"
#include "base/siphash.h"
#include "table/border.h"
#include "table/flow_table.h"
#include "table/idle.h"
#include "table/listen.h"

/** struct rate - What a token bucket allows
 * @price:	ns until another token is earned
 * @burst:	Tokens that it holds
 */
struct rate {
	uint64_t price;
	uint64_t burst;
};

#define NEW_FLOW_RATE  20000 /* misses a second that the guest may cause */
#define NEW_FLOW_BURST 4096  /* and at once */
#define FLOODED_RATE   5000  /* while far more are refused */
#define FLOODED_BURST  128
#define FLOODED_FOR    (100 * NSEC_PER_MSEC)

#define ADMIT_REMOTES 4096 /* buckets of remote addresses, which share them */

/** struct admit - Tokens spent: when those taken so far will have been earned
 * @flows:	Flows that there can be: entries of the table
 * @sockets:	Descriptors that flows may have: the limit less a reserve
 * @outside:	Flows that may begin outside: each may need a descriptor
 * @guest:	New flows of the guest
 * @flooded_until: It asks for so many that it gets fewer
 * @punt:	Frames for services, by kind
 * @remote:	New flows of remote addresses, by hash
 * @key:	Secret of that hash
 */
struct admit {
	uint32_t flows;
	uint32_t sockets;
	uint32_t outside;
	uint64_t guest;
	uint64_t flooded_until;
	uint64_t punt[PUNT_NUM];
	uint64_t remote[ADMIT_REMOTES];
	struct siphash_key key;
};

/* admit_init() - All buckets full
 * @max_flows:	Entries of the flow table */
void admit_init(struct admit *a, uint32_t max_flows,
		const struct siphash_key *key);

/* admit_evict() - Room is scarce: end a datagram flow that is idle, see idle.h
 * Return: it, or NULL: there is none */
struct flow *admit_evict(struct flow_table *ft, enum idle_kind kind,
			 enum flow_type type, uint64_t now);

/* admit_flooded() - The guest causes far more misses than it may: for a while it
 * may cause fewer, so that open flows have the time */
void admit_flooded(struct admit *a, uint64_t now);

/* admit_is_flooded() - Is that so at present? */
static inline bool admit_is_flooded(const struct admit *a, uint64_t now)
{
	return now < a->flooded_until;
}

/* admit_guest() - May the guest cause a miss? Counted if not */
bool admit_guest(struct admit *a, struct flow_table *ft, uint64_t now);

/* admit_punt() - May the guest have a frame lifted to a service? */
bool admit_punt(struct admit *a, enum punt_kind kind, uint64_t now);

/* admit_is_calm() - Has a listener most of its tokens: no flood goes on there */
bool admit_is_calm(const struct listener *l, uint64_t now);

/* admit_is_open() - Has a listener tokens left, so that it pays to read it? */
bool admit_is_open(const struct listener *l, uint64_t now);

/* admit_outside() - May this remote begin a flow by this listener? Counted if
 * not */
bool admit_outside(struct admit *a, struct flow_table *ft, struct listener *l,
		   const union inany *remote, uint64_t now);

#endif /* PASSTPY_TABLE_ADMIT_H */
