/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stage.h - Pending misses: frames, datagrams or sockets parked for a verdict
 *
 * Small and bounded. A miss is keyed by (IP protocol, pif, flowside) like a
 * flow; further frames of the same key join it until its buffer is full. A
 * miss_id carries a generation, so that a late answer hits nothing.
 */
#ifndef PASSTPY_TABLE_STAGE_H
#define PASSTPY_TABLE_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/siphash.h"
#include "base/wire.h"
#include "table/flow.h"
#include "table/pool.h"

#define STAGE_MAX	1024	    /* pending misses at most */
#define STAGE_OUTSIDE	512	    /* of these, from outside */
#define STAGE_BUF	(68 * 1024) /* bytes of parked items each */
#define STAGE_DATAGRAMS 512 /* of these items each: they are sent at once */
#define STAGE_DEADLINE	(2 * NSEC_PER_SEC)
#define STAGE_BEHIND	64 /* misses that wait for the end of a flow */
#define STAGE_PATIENCE	(10 * NSEC_PER_SEC) /* and how long */

#define RELAY_HEAD_MAX 262 /* with a name of 255 bytes */

/** struct relay - How datagrams of a flow leave through a SOCKS5 proxy
 * @control:	Connection that the proxy has agreed on
 * @len:	Bytes of @head
 * @head:	Goes before each datagram (RFC 1928 section 7)
 */
struct relay {
	int control;
	uint16_t len;
	uint8_t head[RELAY_HEAD_MAX];
};

/** struct miss - One pending miss
 * @used:	In use
 * @told:	Its record was returned to Python
 * @again:	Where the first verdict sent it, nobody listens
 * @crossed:	Of a datagram: the server has not its client's family, it seems
 * @begun:	A flow has begun with its socket, before that was known
 * @generation:	For miss_id
 * @ipproto:	IPPROTO_*
 * @pif:	Where it came from
 * @key:	As a flow's initiating side
 * @listener:	Listener number, or -1
 * @fd:		Accepted socket, or -1; owned until taken
 * @given_fd:	Socket that came with the verdict, or -1
 * @relay:	What came with it for a flow of datagrams, or NULL
 * @deadline:	ns
 * @buf:	Pool index of parked items, or POOL_NONE
 * @fill:	Bytes used in the buffer
 * @items:	Number of items in it
 * @datagrams:	What they are when they are sent
 * @behind:	Id of the flow whose end it waits for, or 0
 */
struct miss {
	bool used;
	bool told;
	bool again;
	bool crossed;
	bool begun;
	uint32_t generation;
	uint8_t ipproto;
	uint8_t pif;
	struct flowside key;
	int32_t listener;
	int fd;
	int given_fd;
	const struct relay *relay;
	uint64_t deadline;
	uint32_t buf;
	uint32_t fill;
	uint32_t items;
	uint32_t datagrams;
	uint64_t behind;
};

/** struct stage_item - Header of a parked item; its bytes follow
 * @len:	Bytes that follow
 * @vh:		virtio-net header of a frame (zero for a datagram)
 */
struct stage_item {
	uint32_t len;
	struct vnet_hdr vh;
};

/** struct stage
 * @miss:	STAGE_MAX slots
 * @bufs:	Buffers of parked items
 * @pending:	Slots in use
 * @outside:	Of these, by misses of PIF_HOST
 * @untold:	Ring of slots whose record Python has not seen yet
 * @untold_head: Next to write, free-running
 * @untold_tail: Next to read, free-running
 * @behind:	Slots that wait for the end of a flow
 * @n_behind:	Their number
 * @vacant:	Stack of free slots, STAGE_MAX - @pending of them
 * @next_expiry: No deadline is before this, ns
 * @hash:	Slots by key, linear probing, slot + 1; 0: empty
 * @key:	Secret of the hash
 * @cnt:	Counters
 */
struct stage {
	struct miss *miss;
	struct pool bufs;
	uint32_t pending;
	uint32_t outside;
	uint32_t untold[STAGE_MAX];
	uint32_t untold_head;
	uint32_t untold_tail;
	uint16_t behind[STAGE_BEHIND];
	uint32_t n_behind;
	uint16_t vacant[STAGE_MAX];
	uint64_t next_expiry;
	uint16_t hash[STAGE_MAX * 2];
	struct siphash_key key;
	struct counters *cnt;
};

int stage_init(struct stage *s, const struct siphash_key *key,
	       struct counters *cnt);
void stage_free(struct stage *s); /* closes parked sockets */

/* stage_find() - Pending miss of a key, or NULL */
struct miss *stage_find(struct stage *s, uint8_t ipproto, enum pif pif,
			const struct flowside *key);

/**
 * stage_add() - New pending miss; its key must not be pending
 * Return: the miss, or NULL when full (counted as DROP_STAGE_FULL)
 */
struct miss *stage_add(struct stage *s, uint8_t ipproto, enum pif pif,
		       const struct flowside *key, int32_t listener, int fd,
		       uint64_t now);

/**
 * stage_refused() - A flow from outside that its server refused is a miss once more
 * @fd:		Accepted socket, in no epoll instance; taken over on success. Or
 *		-1: datagrams began it
 *
 * Once in its life: a verdict may know another place for it.
 *
 * Return: the miss, without anything parked; NULL when there is no room
 */
struct miss *stage_refused(struct stage *s, const struct flow *flow, int fd,
			   uint64_t now);

/**
 * stage_park() - Copy a frame or datagram into a miss
 * @vh:		Header of a frame, or NULL
 * Return: 0, -ENOBUFS when it does not fit (caller counts)
 */
int stage_park(struct stage *s, struct miss *m, const void *data, uint32_t len,
	       const struct vnet_hdr *vh);

/* stage_unpark() - Forget what was copied into a miss: something takes its place */
void stage_unpark(struct miss *m);

/* stage_next() - Iterate items: start with *pos = 0; NULL at the end */
struct stage_item *stage_next(struct stage *s, const struct miss *m,
			      uint32_t *pos);

static inline uint8_t *stage_item_data(struct stage_item *item)
{
	return (uint8_t *)(item + 1);
}

static inline uint64_t stage_miss_id(const struct stage *s,
				     const struct miss *m)
{
	return ((uint64_t)m->generation << 32) | (uint64_t)(m - s->miss);
}

struct miss *stage_get(struct stage *s, uint64_t miss_id); /* or NULL */
struct miss *stage_take_untold(struct stage *s);	   /* or NULL */

/* stage_wait() - Keep a miss that was answered until a flow has ended; false if
 * too many wait */
bool stage_wait(struct stage *s, struct miss *m, uint64_t flow_id,
		uint64_t now);

/* stage_ask_again() - The flow has ended: @i of those that wait is a question
 * for Python again, for the answer may be another one by now */
void stage_ask_again(struct stage *s, uint32_t i, uint64_t now);

/* stage_release() - Free slot and buffer; resets @fd unless it is -1 */
void stage_release(struct stage *s, struct miss *m);

/* stage_expire() - Release misses past their deadline, some at a time; count
 * Return: how many. Costs one compare while none is due. */
unsigned stage_expire(struct stage *s, uint64_t now);

#endif /* PASSTPY_TABLE_STAGE_H */
