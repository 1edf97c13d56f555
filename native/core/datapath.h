/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath.h - Create, run and destroy a datapath; what py/ calls */
#ifndef PASSTPY_CORE_DATAPATH_H
#define PASSTPY_CORE_DATAPATH_H

#include <sys/epoll.h>

#include "core/flood.h"
#include "link/reassembly.h"
#include "proto/ctx.h"
#include "proto/handler.h"
#include "table/border.h"

/** struct datapath_config - Everything fixed at creation
 * @backend:	What the tap is made of: tap_backend()
 * @tap_fd:	The guest, as tap_attach() takes it; owned on success; -1 for one
 *		that is yet to come: datapath_attach()
 * @vnet:	virtio-net header in front of frames
 * @offloads:	TAP_OFFLOAD_* granted
 * @mtu:	Largest IP packet
 * @queue_frames: tx queue length of the tap
 * @our_mac:	Our MAC address
 * @guest_mac:	Guest's, or zero: broadcast until learned
 * @max_flows:	Entries of the flow table
 * @virtual_time: Tests: no timerfd, time comes with each turn
 * @secret:	32 random bytes: hash key and ISN key
 */
struct datapath_config {
	const struct tap_ops *backend;
	int tap_fd;
	bool vnet;
	uint32_t offloads;
	uint32_t mtu;
	uint32_t queue_frames;
	uint8_t our_mac[ETH_ALEN_];
	uint8_t guest_mac[ETH_ALEN_];
	uint32_t max_flows;
	bool virtual_time;
	uint8_t secret[32];
};

/** struct batch - Frames of one read of the tap, sorted by flow
 * @frame:	Checked frames
 * @sidx:	Flow and side of each burst
 * @burst:	Frames of one flow each, in order of their first frame
 * @bursts:	Entries of @sidx and @burst
 * @next:	First burst that is not wholly handed out; after the last entry
 *		comes the first one again
 * @left:	How many are not
 */
struct batch {
	struct frame frame[TAP_BATCH];
	flow_sidx_t sidx[TAP_BATCH];
	struct burst burst[TAP_BATCH];
	unsigned bursts;
	unsigned next;
	unsigned left;
};

#define EVENTS_MAX 128 /* events of one visit to epoll */

/** struct events - What epoll told last; edges are told once, and kept here
 * @ev:		Events
 * @n:		How many
 * @next:	First that was not handled
 */
struct events {
	struct epoll_event ev[EVENTS_MAX];
	unsigned n;
	unsigned next;
};

/** struct datapath - A context, and what only the turn loop needs
 * @ctx:	What handlers see
 * @batch:	Frames of the guest that are being handed out
 * @events:	Events that are being handled
 * @flush_more:	Handlers have more to send that they had put off
 * @flood:	What the guest is refused
 * @undrained:	Reads of the tap in a row that left something there
 * @mixed:	Reads of the tap for which frames of several flows are to be
 *		expected
 * @punts:	Frames for services, of this turn
 * @lift_groups: Datagrams for groups, and what the guest says of its membership,
 *		go to Python, which relays them
 * @lift_dns:	Questions to any DNS server go to Python, which answers them
 * @reassembly:	Datagrams of the guest that come in fragments
 * @gone:	errno that ended the tap or took its guest away, not told yet; or 0
 * @gone_told:	It was told
 * @gate_shut:	The guest takes nothing: sockets of EPOLL_GATED are not heard
 * @spin_credit: Spinning was worth it lately: it goes on while this lasts
 * @bulk:	Bytes flow too fast for spinning to be of use
 * @bulk_since:	ns since when @bulk_moved is counted
 * @bulk_moved:	Bytes moved until then
 * @last_event:	ns when anything happened
 * @long_turns:	The last turn was a long one: time the next one closely
 */
struct datapath {
	struct ctx ctx;
	struct batch batch;
	struct events events;
	bool flush_more;
	struct flood flood;
	uint32_t undrained;
	uint32_t mixed;
	struct border_punts punts;
	bool lift_groups;
	bool lift_dns;
	struct reassembly reassembly;
	int gone;
	bool gone_told;
	bool gate_shut;
	uint32_t spin_credit;
	bool bulk;
	uint64_t bulk_since;
	uint64_t bulk_moved;
	uint64_t last_event;
	bool long_turns;
};

/**
 * datapath_create() - Allocate everything that a datapath will ever need
 * @ret_dp:	Filled on success; to be ended by datapath_destroy()
 *
 * Return: 0 or -errno, and @tap_fd stays the caller's; -ERANGE the backend
 * carries no packets of that MTU
 */
int datapath_create(struct datapath **ret_dp, const struct datapath_config *g);
void datapath_destroy(struct datapath *dp);

/**
 * datapath_attach() - A guest came: its frames go through this socket
 * @fd:		Connected stream socket; taken over on success
 *
 * Flows of a guest before it go on; one that was started anew resets them.
 *
 * Return: 0; -EBUSY there is a guest; -EPROTOTYPE no stream socket; -EOPNOTSUPP
 * the tap is of another kind
 */
int datapath_attach(struct datapath *dp, int fd);

/* datapath_detach() - Let go of the guest: flows stay, and wait for the next */
void datapath_detach(struct datapath *dp);

/* datapath_take_gone() - What took the guest away since the last call: errno,
 * or 0; a tap that ends with its guest tells it once */
int datapath_take_gone(struct datapath *dp);

/** struct turn_limits
 * @now:	ns, or 0: read the clock
 * @slice:	Return after this many ns of work
 * @spin:	Poll this many ns after the last event before returning
 */
struct turn_limits {
	uint64_t now;
	uint64_t slice;
	uint64_t spin;
};

/**
 * datapath_turn() - One bounded run: tap, sockets, timers, deferred scan
 *
 * Ends when nothing happened for limits->spin (adaptive: spinning that finds
 * nothing is soon given up), when the slice or WORK_TURN is used up, or when
 * there is a miss or a punt for Python. What is unfinished then makes fileno()
 * readable at once. Afterwards misses wait in ctx.stage (untold),
 * punted frames in dp->punts.
 *
 * Return: 0, or -errno when the tap is gone
 */
int datapath_turn(struct datapath *dp, const struct turn_limits *limits);

/**
 * datapath_open() - Carry out a verdict
 * @miss_id:	From the miss
 * @fd:		Socket of the namespace for a splice, neither bound nor
 *		connected; for a splice to the host, a connected UNIX one, or
 *		-1; for a forward of a TCP connection of the guest, a
 *		connected stream socket, TCP or UNIX, which is its peer; or -1.
 *		For a forward of datagrams of the guest by @relay, a socket
 *		that is connected to it. Taken over, unless this fails
 * @relay:	The proxy through which datagrams leave, or NULL; its socket is
 *		taken over as well
 * @ret_flow_id: Filled with the flow's handle, or 0 where the verdict was to
 *		reject or to drop: no flow has that
 *
 * Walks the flow through NEW ... ACTIVE, opens its sockets and replays what was
 * parked; or rejects, or drops. A turn must follow: it sends what was put off.
 *
 * Return: 0; -ESTALE the miss is gone; -ENFILE the table is full; -EADDRINUSE
 * the guest has such a flow; -EINVAL, -EBADF, -EDESTADDRREQ, -EAFNOSUPPORT,
 * -EPROTONOSUPPORT the verdict cannot be carried out; else of the handler's
 * system calls. But for -ESTALE, the initiator was told; -ECONNREFUSED of a
 * connection that came with a socket, the first time: it was not, and the miss
 * stands, for a verdict that knows another place
 */
int datapath_open(struct datapath *dp, uint64_t miss_id,
		  const struct verdict *v, int fd, const struct relay *relay,
		  uint64_t *ret_flow_id);

/**
 * datapath_close_flow() - End a flow though neither of its ends did
 * @why:	WHY_ASKED or WHY_POLICY
 *
 * Both ends of a connection are reset. A turn must follow, as after open.
 *
 * Return: 0, or -ESTALE: the flow is gone
 */
int datapath_close_flow(struct datapath *dp, uint64_t id, enum flow_why why);

/**
 * datapath_adopt() - Go on with another socket in place of a connection's own
 * @fd:		Connected stream socket, TCP or UNIX; taken over, unless this
 *		fails
 * @forget:	What the guest said, and no socket took, is not for this one
 *
 * To the guest nothing happens: it may have sent and received before, and its
 * FIN is passed on to the new socket too. What it sent so far is in the old
 * socket, for whoever holds the other end, which sees that it is closed; of a
 * flow that is inspected it is for the new one. A turn must follow.
 *
 * Return: 0; -ESTALE the flow is gone; -EPROTONOSUPPORT it is no TCP over the
 * tap; -EINPROGRESS its own socket still connects; -EPIPE the guest was told
 * that the peer's bytes ended; -EAGAIN bytes of the old socket wait for the
 * guest, or for its acknowledgement; -ENOTCONN, -ENOTSOCK, -EBADF, -EPROTOTYPE,
 * -EAFNOSUPPORT, -EEXIST: no such socket
 */
int datapath_adopt(struct datapath *dp, uint64_t id, int fd, bool forget);

/**
 * datapath_connect() - Let a flow that is inspected go on
 * @eaddr:	Where to, of the family that the verdict was about
 * @eport:	Its port
 *
 * What the guest said is for whoever is there. If nobody is, the guest's
 * connection is reset. A turn must follow.
 *
 * Return: 0; -ESTALE the flow is gone; -EPROTONOSUPPORT, -EISCONN it is not
 * inspected; -EAFNOSUPPORT; else of system calls, and it still is
 */
int datapath_connect(struct datapath *dp, uint64_t id, const union inany *eaddr,
		     uint16_t eport);

/** struct said - What a guest has said to a flow that is inspected
 * @flow_id:	Of the flow
 * @data:	All of it, up to INSPECTED_BYTES
 * @ended:	The guest says no more
 * @gone:	The flow has ended
 */
struct said {
	uint64_t flow_id;
	struct iovec data;
	bool ended;
	bool gone;
};

/* datapath_said() - The next flow that is inspected and has news; false: none has.
 * The bytes are there until the next call for this datapath */
bool datapath_said(struct datapath *dp, struct said *ret_said);

/**
 * datapath_set_rule() - What may change of an open flow's verdict
 * @admit:	Only if limits of the rule let another flow begin
 *
 * Return: 0; -ESTALE the flow is gone; -EUSERS, -EDQUOT limits do not, and all is
 * as before
 */
int datapath_set_rule(struct datapath *dp, uint64_t id, uint32_t rule,
		      uint32_t generation, bool admit);

#endif /* PASSTPY_CORE_DATAPATH_H */
