/* SPDX-License-Identifier: GPL-2.0-or-later */
/* handler.h - What a protocol is, seen from outside
 *
 * Adding a protocol: one proto/x.{c,h}, one enum line in table/flow.h, one row
 * in core/handlers.c. Every function gets the context first; time is c->now.
 */
#ifndef PASSTPY_PROTO_HANDLER_H
#define PASSTPY_PROTO_HANDLER_H

#include "proto/ctx.h"
#include "link/extract.h"
#include "table/listen.h"
#include "table/stage.h"

/** struct handler
 * @ipproto:	IPPROTO_*
 * @splices:	For flows of VERDICT_SPLICE: from socket to socket
 * @repeats:	Until it is answered the guest sends the first frame of a flow
 *		again, or another in its place: the last one is parked
 * @lossy:	What the guest sends beyond its share may be dropped when other
 *		flows stand in line behind it
 * @init:	Make what flows of this type share, in c->shared[]; may be NULL.
 *		@secret: random, for what must not be guessed
 * @fini:	Free it, also if @init failed halfway
 * @stray:	A frame of the guest that belongs to no flow: true if it may not
 *		start one, and was answered; NULL: any may
 * @open:	Open a flow's sockets; the flow is TYPED. @m still holds what
 *		was parked: an accepted socket in m->fd (take it by setting -1),
 *		datagrams of a listening socket. m->given_fd, if there is one,
 *		is the flow's if this succeeds, and its caller's if not. Frames
 *		of the guest are replayed through @from_tap by core/ after @open.
 *		Return 0 or -errno: core/ cancels the flow then
 * @reject:	Verdict was "reject", or @open failed with @err: tell the
 *		initiator as a host would (RST, ICMP); may be NULL. An accepted
 *		socket is reset when its miss is released
 * @interest:	What the socket of a side waits for in the flow's state; see
 *		flow_interest_fn
 * @from_tap:	Frames of this flow from the guest; may leave some for the next
 *		round (burst.rest) once c->budget is spent, or for another flow
 *		once this one has ended
 * @from_sock:	Events of this flow's socket. What it leaves undone once
 *		c->budget is spent it is called for again: by epoll if the
 *		socket is level-triggered, else after ready_add()
 * @from_port: Events of a socket that several flows share, by the index that it
 *		was registered with; NULL: there are none
 * @refused:	The guest told, by ICMP, that nobody has the port that this flow
 *		leads to; NULL: that means nothing
 * @timer:	The flow's deadline passed
 * @listen:	A listening socket is readable: find flows, add misses
 * @flush:	End of a batch: send what was put off (ACKs); may be NULL.
 *		@sleep: the datapath is about to wait for events. Return: true
 *		if c->budget did not suffice, and there is more
 * @close:	Somebody wants the flow closed, for @why: tell both ends as if
 *		the other one had reset it, and mark it closed. NULL: no end
 *		can be told, and core/ marks it
 * @adopt:	Go on with another host socket in place of the flow's, which is
 *		closed. @forget: what the guest said, and no socket took, is
 *		not for this one. Return 0, or -errno, and all is as before;
 *		NULL: flows of this type cannot
 * @said:	What the guest has said to a flow that is inspected, up to
 *		INSPECTED_BYTES; *@ret_ended: that was all. Flows of types
 *		without it are none
 * @connect:	Let a flow that is inspected go on to this address and port.
 *		Return 0, or -errno, and all is as before
 * @yield:	A new flow wants the addresses that this one has at the guest:
 *		true if it was over but for that, and is marked closed now; NULL:
 *		it never is
 * @unruled:	The flow is about to be put under another rule: give back what limits
 *		gave for what has not moved yet; NULL: nothing
 * @ruled:	The flow was put under another rule, which is in it already; NULL:
 *		nobody else has to know
 * @defer:	The flow was marked closed: close its fds, release buffers;
 *		true: free the entry
 */
struct handler {
	uint8_t ipproto;
	bool splices;
	bool repeats;
	bool lossy;
	int (*init)(struct ctx *c, const uint8_t secret[16]);
	void (*fini)(struct ctx *c);
	bool (*stray)(struct ctx *c, const struct frame *f);
	int (*open)(struct ctx *c, struct flow *flow, const struct verdict *v,
		    struct miss *m);
	void (*reject)(struct ctx *c, struct miss *m, int err);
	flow_interest_fn interest;
	void (*from_tap)(struct ctx *c, struct flow *flow, struct burst *b);
	void (*from_sock)(struct ctx *c, struct flow *flow, unsigned sidei,
			  uint32_t events);
	void (*from_port)(struct ctx *c, uint32_t i, int fd, uint32_t events);
	void (*refused)(struct ctx *c, struct flow *flow);
	void (*timer)(struct ctx *c, struct flow *flow);
	void (*listen)(struct ctx *c, struct listener *l, uint32_t number);
	bool (*flush)(struct ctx *c, bool sleep);
	void (*close)(struct ctx *c, struct flow *flow, enum flow_why why);
	int (*adopt)(struct ctx *c, struct flow *flow, int fd, bool forget);
	struct iovec (*said)(const struct ctx *c, struct flow *flow,
			     bool *ret_ended);
	int (*connect)(struct ctx *c, struct flow *flow,
		       const union inany *eaddr, uint16_t eport);
	bool (*yield)(struct ctx *c, struct flow *flow);
	void (*unruled)(struct ctx *c, struct flow *flow);
	void (*ruled)(struct ctx *c, struct flow *flow);
	bool (*defer)(struct ctx *c, struct flow *flow);
};

extern const struct handler tcp_handler;
extern const struct handler splice_handler;
extern const struct handler udp_handler;
extern const struct handler udp_splice_handler;
extern const struct handler ping4_handler;
extern const struct handler ping6_handler;

#endif /* PASSTPY_PROTO_HANDLER_H */
