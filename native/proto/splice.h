/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice.h - What the files of the spliced TCP handler share
 *
 * splice.c owns a flow's life, splice_move.c its bytes. A direction is named
 * after the side that its bytes come from.
 */
#ifndef PASSTPY_PROTO_SPLICE_H
#define PASSTPY_PROTO_SPLICE_H

#include "proto/ctx.h"
#include "proto/handler.h"

/* Bytes of one read: all of the scratch buffers at most. Measured, in
 * docs/decisions/0003-splice-by-copying.md. */
#define SPLICE_READ_MAX (CTX_BUFS * CTX_BUF_SIZE)
#define SPLICE_READ_MIN (64 * 1024)

/** struct splice_dir - Bytes on their way from one side to the other
 * @head:	First chunk of bytes that were read but not taken, or POOL_NONE
 * @tail:	Last of these chunks
 * @held:	Bytes in them
 * @want:	Bytes to ask for in the next read
 * @err:	errno that send() to the side gave when its connection was over;
 *		recv() does not tell it again
 * @eof:	The side ended in order, after its last byte
 */
struct splice_dir {
	uint32_t head;
	uint32_t tail;
	uint32_t held;
	uint32_t want;
	int err;
	bool eof;
};

/** struct splice_conn - What a spliced connection remembers
 * @dir:	Directions, by the side they come from
 * @changed:	SPLICE_EV() bits that changed in this event
 * @err:	errno that ended it, for the log, or 0
 * @abort:	It does not end in order: both sides are to see a reset
 * @acked:	While aborting: bytes that survivors had acknowledged
 * @give_up:	While aborting: ns at which nobody waits for it any longer
 */
struct splice_conn {
	struct splice_dir dir[SIDES];
	uint32_t changed;
	int err;
	bool abort;
	uint64_t acked;
	uint64_t give_up;
};

_Static_assert(sizeof(struct splice_conn) <= FLOW_PRIV_SIZE, "splice_conn");

static inline struct splice_conn *splice_conn(struct flow *flow)
{
	return (struct splice_conn *)(void *)flow->priv;
}

/* splice_is() - Was SPLICE_EV_* observed of that side? */
static inline bool splice_is(const struct flow *flow, enum splice_event event,
			     unsigned sidei)
{
	return flow->f.events & SPLICE_EV(event, sidei);
}

/* splice.c */

/**
 * splice_event() - Record what changed; epoll hears of it at the event's end
 * @set:	SPLICE_EV() bits that are observed from now on
 * @clear:	SPLICE_EV() bits that are no longer
 */
void splice_event(struct ctx *c, struct flow *flow, uint32_t set,
		  uint32_t clear);

/**
 * splice_over() - The connection of one side is over
 *
 * Nothing can be given to it any more; what it sent before is in its queue,
 * and still goes to the other side.
 */
void splice_over(struct ctx *c, struct flow *flow, unsigned sidei, int err);

/* splice_move.c */

/**
 * splice_move() - Pass on what came from a side, as one read gives it
 *
 * Everything, if that side's connection is over.
 */
void splice_move(struct ctx *c, struct flow *flow, unsigned from);

/* splice_release() - Forget bytes that were read from a side */
void splice_release(struct ctx *c, struct flow *flow, unsigned from);

#endif /* PASSTPY_PROTO_SPLICE_H */
