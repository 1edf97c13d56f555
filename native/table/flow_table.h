/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_table.h - The flow table: life of entries, free clusters, hash */
#ifndef PASSTPY_TABLE_FLOW_TABLE_H
#define PASSTPY_TABLE_FLOW_TABLE_H

#include <assert.h>
#include <stddef.h>

#include "base/counters.h"
#include "base/siphash.h"
#include "table/flow.h"
#include "table/flow_log.h"
#include "table/timer.h"

struct flow_bucket;
struct meters;

/** struct ready_list - Ends of the ready list (ready.h): index + 1, or 0
 * @count:	Flows in it
 */
struct ready_list {
	uint32_t head;
	uint32_t tail;
	uint32_t count;
};

/** enum idle_kind - Lists that a datagram flow may be in: see idle.h */
enum idle_kind {
	IDLE_GUEST,   /* the guest's, that would give a descriptor back */
	IDLE_SHARING, /* the guest's, that would not */
	IDLE_OUTSIDE, /* that began outside */
	IDLE_NUM
};

/** struct idle_list - Ends of a list of datagram flows: index + 1, or 0 */
struct idle_list {
	uint32_t head;
	uint32_t tail;
};

/** struct flow_table - All flows of a datapath
 * @flows:	Entries, one reserved address range touched on demand
 * @max:	Entries at most
 * @top:	Entries at and above are free: the last free cluster
 * @first_free:	First free cluster; @top if there is none below, so that it
 *		is @max when the table is full
 * @run_map:	One bit for each entry that starts a free cluster
 * @making:	The flow between NEW and TYPED, or NULL
 * @active:	Number of ACTIVE entries, closed ones included
 * @closing:	Number of entries marked closed
 * @closing_since: ns of the oldest mark, or of the scan that left it
 * @closing_map: One bit for each entry marked closed
 * @closing_lo:	Lowest index marked closed, UINT32_MAX if none
 * @closing_hi:	Highest index marked closed
 * @hash:	Buckets, power of two, linear probing
 * @hash_mask:	Number of buckets - 1
 * @hash_used:	Buckets in use
 * @key:	Secret of the hash
 * @log:	Where steps are logged
 * @cnt:	Counters
 * @ready:	Flows with something left to do
 * @idle:	Datagram flows, by enum idle_kind
 * @outside:	ACTIVE flows that began outside, not closed
 * @sockets:	Descriptors that flows have, those that they share counted once
 * @meters:	Limits of bytes and flows, or NULL: there never were any
 * @meters_room: Where they lie then, zeros before
 * @timers:	The wheel that flows are taken out of when marked closed
 * @reserved:	Bytes of the address range, which starts at @flows
 * @hash_area:	Tables of all sizes: one of n buckets starts at bucket n
 * @unchecked:	Mutations since the last flow_table_check() of a debug build
 */
struct flow_table {
	struct flow *flows;
	uint32_t max;
	uint32_t top;
	uint32_t first_free;
	uint64_t *run_map;
	struct flow *making;
	uint32_t active;
	uint32_t closing;
	uint64_t closing_since;
	uint64_t *closing_map;
	uint32_t closing_lo;
	uint32_t closing_hi;
	struct flow_bucket *hash;
	uint32_t hash_mask;
	uint32_t hash_used;
	struct siphash_key key;
	struct flow_log *log;
	struct counters *cnt;
	struct ready_list ready;
	struct idle_list idle[IDLE_NUM];
	uint32_t outside;
	uint32_t sockets;
	struct meters *meters;
	struct meters *meters_room;
	struct timers *timers;
	size_t reserved;
	struct flow_bucket *hash_area;
#ifdef PASSTPY_DEBUG
	uint32_t unchecked;
#endif
};

#define FLOW_TABLE_MAX (1U << 22) /* entries at most */

/* A scan is due when so many flows were marked closed, or the first mark is so
 * old: freeing in one walk is cheaper, but memory and fds are not to wait. */
#define FLOW_DEFER_COUNT 64
#define FLOW_DEFER_AGE	 (10 * NSEC_PER_MSEC)

/**
 * flow_table_init() - Reserve the table
 * @max:	Entries, 1 to FLOW_TABLE_MAX
 *
 * Sets the base of @log and @timers too; both may be initialised after this.
 *
 * Return: 0, -EINVAL for a bad @max, or -ENOMEM
 */
int flow_table_init(struct flow_table *ft, uint32_t max,
		    const struct siphash_key *key, struct flow_log *log,
		    struct counters *cnt, struct timers *timers);
void flow_table_free(struct flow_table *ft);

/* Life of an entry: each step asserts the state before it, records and logs.
 * flow_alloc() returns NULL when the table is full, counted DROP_TABLE_FULL. */
struct flow *flow_alloc(struct flow_table *ft, uint64_t now);
void flow_initiate(struct flow_table *ft, struct flow *flow, enum pif pif,
		   const struct flowside *side, uint64_t now);
void flow_target(struct flow_table *ft, struct flow *flow,
		 const struct verdict *v, uint64_t now);
void flow_set_type(struct flow_table *ft, struct flow *flow,
		   enum flow_type type, uint64_t now);
void flow_activate(struct flow_table *ft, struct flow *flow, uint64_t now);
void flow_alloc_cancel(struct flow_table *ft, struct flow *flow, uint64_t now);

/**
 * flow_set_our_addr() - Record our address on a side once the kernel chose it
 *
 * Only before the side is in the hash.
 */
void flow_set_our_addr(struct flow *flow, unsigned sidei,
		       const union inany *oaddr, uint16_t oport);

/* flow_set_endpoint() - The remote party of an open flow's side is another one */
void flow_set_endpoint(struct flow_table *ft, struct flow *flow, unsigned sidei,
		       const union inany *eaddr, uint16_t eport);

/* flow_set_fd() - A socket becomes a flow's; it is in no epoll instance yet */
static inline void flow_set_fd(struct flow_table *ft, struct flow *flow,
			       unsigned sidei, int fd)
{
	assert(fd >= 0 && flow->f.fd[sidei] < 0);
	flow->rw.fd[sidei] = fd;
	ft->sockets++;
}

/* flow_take_fd() - Take its socket from a flow, to be closed by the caller,
 * which takes it out of epoll too; or -1 if it has none */
static inline int flow_take_fd(struct flow_table *ft, struct flow *flow,
			       unsigned sidei)
{
	int fd = flow->f.fd[sidei];

	ft->sockets -= fd >= 0;
	flow->rw.fd[sidei] = -1;
	flow->rw.interest[sidei] = 0;
	return fd;
}

/* flow_set_events() - What its handler has seen happen to it, all in all */
static inline void flow_set_events(struct flow *flow, uint16_t events)
{
	flow->rw.events = events;
}

/* flow_set_listener() - Which listening socket a flow came by */
static inline void flow_set_listener(struct flow *flow, int32_t number)
{
	flow->rw.listener = number;
}

/* flow_set_rule() - The rule that would admit an open flow now */
void flow_set_rule(struct flow_table *ft, struct flow *flow, uint32_t rule,
		   uint32_t policy);

/**
 * flow_mark_closed() - Take a flow out of hash and timers; the scan frees it
 * @why:	enum flow_why, logged
 * @err:	errno value for the log, or 0
 */
void flow_mark_closed(struct flow_table *ft, struct flow *flow,
		      enum flow_why why, int err, uint64_t now);

/** typedef flow_defer_fn - Release what a closed flow holds
 * Return: true when the entry may be freed
 */
typedef bool (*flow_defer_fn)(void *arg, struct flow *flow);

/* flow_defer_due() - Enough was marked closed, or long enough ago, to scan */
bool flow_defer_due(const struct flow_table *ft, uint64_t now);

/* flow_defer_scan() - Walk the table, free closed flows, rebuild clusters */
void flow_defer_scan(struct flow_table *ft, flow_defer_fn defer, void *arg,
		     uint64_t now);

/* Hash. flow_activate() inserts each side whose addresses and ports are
 * complete, flow_mark_closed() removes what was inserted. Two
 * sides with the same addresses are possible; whichever was first is found, so
 * that whoever opens a flow looks up its target side before. */
void flow_hash_insert(struct flow_table *ft, flow_sidx_t sidx);
void flow_hash_remove(struct flow_table *ft, flow_sidx_t sidx);
flow_sidx_t flow_lookup(const struct flow_table *ft, uint8_t ipproto,
			enum pif pif, const struct flowside *side);

/* flow_touch() - Count packets in a direction (0: INISIDE to TGTSIDE) */
static inline void flow_touch(struct flow *flow, unsigned dir, uint64_t packets,
			      uint64_t bytes, uint64_t now)
{
	flow->rw.packets[dir] += packets;
	flow->rw.bytes[dir] += bytes;
	flow->rw.last_use = now;
}

/* flow_touch_tcp() - The same, and join the TCP flags seen */
static inline void flow_touch_tcp(struct flow *flow, unsigned dir,
				  uint64_t packets, uint64_t bytes,
				  uint8_t flags, uint64_t now)
{
	flow->rw.tcp_flags[dir] |= flags;
	flow_touch(flow, dir, packets, bytes, now);
}

static inline uint32_t flow_index(const struct flow_table *ft,
				  const struct flow *flow)
{
	return (uint32_t)(flow - ft->flows);
}

static inline flow_sidx_t flow_sidx(const struct flow_table *ft,
				    const struct flow *flow, unsigned sidei)
{
	return (flow_sidx_t){ .side = sidei & 1, .flow = flow_index(ft, flow) };
}

/* flow_at() - Flow of a sidx; NULL if none, or not ACTIVE, or closed */
struct flow *flow_at(const struct flow_table *ft, flow_sidx_t sidx);

/* flow_id: generation << 32 | index; the only handle Python holds */
static inline uint64_t flow_id(const struct flow_table *ft,
			       const struct flow *flow)
{
	return ((uint64_t)flow->f.generation << 32) | flow_index(ft, flow);
}

/* flow_by_id() - Open flow of a flow_id; NULL if it is gone, or never was */
struct flow *flow_by_id(const struct flow_table *ft, uint64_t id);

/**
 * flow_snapshot() - Next flows from a cursor on, for listings
 * @cursor:	Index to start at; set to the index to go on from, 0 at the end
 * @fn:		Called for each ACTIVE, not closed flow
 * @limit:	Flows at most
 */
void flow_snapshot(const struct flow_table *ft, uint32_t *cursor,
		   void (*fn)(void *arg, const struct flow *flow), void *arg,
		   unsigned limit);

/* flow_table_check() - Assert every invariant; for tests and debug builds */
void flow_table_check(const struct flow_table *ft);

#endif /* PASSTPY_TABLE_FLOW_TABLE_H */
