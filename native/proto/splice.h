/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splice.h - What the files of the spliced TCP handler share
 *
 * splice.c owns a flow's life, splice_move.c moves its bytes and sees what each
 * socket says, splice_hold.c keeps what a socket does not take; each calls only
 * those after it. A direction is named after the side that its bytes come from.
 */
#ifndef PASSTPY_PROTO_SPLICE_H
#define PASSTPY_PROTO_SPLICE_H

#include <sys/uio.h>

#include "proto/ctx.h"
#include "proto/handler.h"

/* Bytes of one read: all of the scratch buffers at most. Measured, in
 * docs/decisions/0003-splice-by-copying.md. */
#define SPLICE_READ_MAX (CTX_BUFS * CTX_BUF_SIZE)
#define SPLICE_READ_MIN (64 * 1024)

/** enum splice_event - What holds of a spliced TCP flow now, bits of @events
 *
 * Those of a side are shifted by it: SPLICE_EV().
 * @SPLICE_EV_CONNECTING: The target has not answered yet
 * @SPLICE_EV_BLOCKED:	The side's socket takes no more for now
 * @SPLICE_EV_IN_DONE:	Nothing more is to be read from the side
 * @SPLICE_EV_OUT_DONE:	Nothing more is to be written to the side
 * @SPLICE_EV_OVER:	The side's connection is over
 * @SPLICE_EV_LEFT:	The side's peer has closed a UNIX socket, in order; there is
 *			nothing that epoll could tell of it any more
 * @SPLICE_EV_WAITS:	A limit does not let more pass from the side for now
 */
enum splice_event {
	SPLICE_EV_CONNECTING = 1 << 0,
	SPLICE_EV_BLOCKED = 1 << 1,
	SPLICE_EV_IN_DONE = 1 << 3,
	SPLICE_EV_OUT_DONE = 1 << 5,
	SPLICE_EV_OVER = 1 << 7,
	SPLICE_EV_LEFT = 1 << 9,
	SPLICE_EV_WAITS = 1 << 11,
};

#define SPLICE_EV(event, sidei) ((uint32_t)(event) << (sidei))

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
 * @err:	errno that ended it, for the log, or 0
 * @abort:	It does not end in order: both sides are to see a reset
 * @local:	The side's socket is a UNIX one
 * @again:	Somewhere else it was refused already
 * @acked:	While aborting: bytes that survivors had acknowledged
 * @give_up:	While aborting: ns at which nobody waits for it any longer
 */
struct splice_conn {
	struct splice_dir dir[SIDES];
	int err;
	bool abort;
	bool again;
	bool local[SIDES];
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

/* splice_move.c */

/**
 * splice_event() - Record what changed; epoll hears of it at the event's end
 * @set:	SPLICE_EV() bits that are observed from now on
 * @clear:	SPLICE_EV() bits that are no longer
 */
void splice_event(struct ctx *c, struct flow *flow, uint32_t set,
		  uint32_t clear);

/**
 * splice_move() - Pass on what came from a side, as one read gives it
 *
 * Everything, if that side's connection is over.
 */
void splice_move(struct ctx *c, struct flow *flow, unsigned from);

/**
 * splice_over() - The connection of one side is over
 *
 * Nothing can be given to it any more; what it sent before is in its queue,
 * and still goes to the other side.
 */
void splice_over(struct ctx *c, struct flow *flow, unsigned sidei, int err);

/* splice_hold.c */

/* splice_room() - Bytes that could be held */
size_t splice_room(const struct ctx *c);

/* splice_hold() - Keep bytes that wait; there is room, the caller looked */
void splice_hold(struct ctx *c, struct splice_dir *d, const uint8_t *data,
		 uint32_t len);

/* splice_held_iov() - Bytes that are held, for sendmsg(); entries of @iov */
unsigned splice_held_iov(const struct ctx *c, const struct splice_dir *d,
			 struct iovec *iov, unsigned max, uint32_t *ret_len);

/* splice_drop() - The first @len held bytes are no longer needed */
void splice_drop(struct ctx *c, struct splice_dir *d, uint32_t len);

/* splice_release() - Forget bytes that were read from a side */
void splice_release(struct ctx *c, struct flow *flow, unsigned from);

#endif /* PASSTPY_PROTO_SPLICE_H */
