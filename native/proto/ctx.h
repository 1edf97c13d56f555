/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctx.h - The execution context: everything a handler may reach
 *
 * One per datapath, allocated once; nothing here is global, so that several
 * datapaths can live in one process (tests do that).
 */
#ifndef PASSTPY_PROTO_CTX_H
#define PASSTPY_PROTO_CTX_H

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/macros.h"
#include "link/tap.h"
#include "table/admit.h"
#include "table/crossing.h"
#include "table/epoll.h"
#include "table/flow_log.h"
#include "table/flow_table.h"
#include "table/inspected.h"
#include "table/listen.h"
#include "table/ready.h"
#include "table/stage.h"
#include "table/timer.h"

#define CTX_BUF_SIZE (64 * 1024) /* payload of one super-segment */
#define CTX_BUFS     16		 /* of these in ctx.bufs */

#define CTX_DEAD_MAX 64 /* sockets waiting to be closed */

/** struct ctx
 * @now:	ns, read once a turn (CLOCK_MONOTONIC, or the test's)
 * @budget:	Work that may still be done before somebody else's turn
 * @epoll:	The epoll instance everything is registered in
 * @ft:		Flow table
 * @timers:	Timing wheel
 * @stage:	Pending misses
 * @crossings:	Datagrams that may have to go to the other family
 * @log:	Log ring
 * @cnt:	Counters
 * @tap:	The channel to the guest
 * @listeners:	Listening sockets
 * @admit:	Who may open flows, and how often
 * @inspected:	Flows whose guest says first where it wants to go
 * @shared:	By type of flow: what its flows share, made by the handler's init()
 * @dead:	Sockets to close when nothing else is to be done: close() of a
 *		TCP socket sends, and costs as much as half a connection's
 *		other system calls
 * @n_dead:	Entries of @dead
 * @bufs:	Scratch for one event: CTX_BUFS buffers of CTX_BUF_SIZE, in a row
 * @scope_id:	Host interface index for link-local destinations, or 0
 * @our_addr:	Where the guest sees us (v4, v6): what we refuse, we say so
 *		ourselves; unspecified: it seems to come from the target
 * @udp_strict:	Only who was asked may answer a UDP port: address and port
 * @outbound_if: SO_BINDTODEVICE names for outbound sockets (v4, v6), or ""
 */
struct ctx {
	uint64_t now;
	struct budget budget;
	struct epoll_set epoll;
	struct flow_table ft;
	struct timers timers;
	struct stage stage;
	struct crossings crossings;
	struct flow_log log;
	struct counters cnt;
	struct tap tap;
	struct listeners listeners;
	struct admit admit;
	struct inspected inspected;
	void *shared[FLOW_NUM_TYPES];
	int dead[CTX_DEAD_MAX];
	uint32_t n_dead;
	uint8_t *bufs;
	uint32_t scope_id;
	union inany our_addr[2];
	bool udp_strict;
	char outbound_if[2][16];
};

/* ctx_close_dead() - Close up to @max sockets that are waiting for it */
static inline void ctx_close_dead(struct ctx *c, uint32_t max)
{
	while (c->n_dead && max--)
		(void)close(c->dead[--c->n_dead]);
}

/* ctx_close_later() - Close a socket that no flow refers to any more */
static inline void ctx_close_later(struct ctx *c, int fd)
{
	if (c->n_dead == CTX_DEAD_MAX)
		ctx_close_dead(c, 1);
	c->dead[c->n_dead++] = fd;
}

/* ctx_moved() - Payload of a flow was given to side @to: for captures, if any
 * is on; see capture_moved() */
static inline void ctx_moved(struct ctx *c, const struct flow *flow,
			     unsigned to, const struct iovec *iov, uint32_t len,
			     uint32_t size)
{
	if (c->tap.captures)
		capture_moved(c->tap.captures, flow, to, iov, len, size);
}

/* ctx_said() - The same for what begins or ends a connection at the socket of a
 * side, before that socket is closed; see capture_said() */
static inline void ctx_said(struct ctx *c, const struct flow *flow,
			    unsigned sidei, enum capture_said what)
{
	if (c->tap.captures)
		capture_said(c->tap.captures, flow, sidei, what);
}

#endif /* PASSTPY_PROTO_CTX_H */
