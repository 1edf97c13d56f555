/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow.h - What a flow is: states, types, sides, and the entry itself
 *
 * Owns: the types every other file speaks of. A flow joins two sides; side
 * INISIDE started it, side TGTSIDE was chosen by a verdict. Everybody reads the
 * common fields as @f, which is const; only table/ writes them, as @rw. What a
 * handler alone knows it keeps in @priv. See docs/flow-table.md.
 */
#ifndef PASSTPY_TABLE_FLOW_H
#define PASSTPY_TABLE_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/inany.h"

/** enum pif - passt interface: where one side of a flow lives */
enum pif { PIF_NONE, PIF_HOST, PIF_TAP, PIF_SPLICE, PIF_NUM };

/** enum flow_state - Life of an entry, one direction only
 * @FLOW_FREE:	Unused
 * @FLOW_NEW:	Zeroed, being made
 * @FLOW_INI:	Initiating side known
 * @FLOW_TGT:	Target side known
 * @FLOW_TYPED:	Protocol known
 * @FLOW_ACTIVE: Handed to its handler
 */
enum flow_state {
	FLOW_FREE,
	FLOW_NEW,
	FLOW_INI,
	FLOW_TGT,
	FLOW_TYPED,
	FLOW_ACTIVE,
	FLOW_NUM_STATES
};

enum flow_type {
	FLOW_TYPE_NONE,
	FLOW_TCP,
	FLOW_TCP_SPLICE,
	FLOW_PING4,
	FLOW_PING6,
	FLOW_UDP,
	FLOW_UDP_SPLICE,
	FLOW_NUM_TYPES
};

extern const char *const pif_names[PIF_NUM];
extern const char *const flow_state_names[FLOW_NUM_STATES];
extern const char *const flow_type_names[FLOW_NUM_TYPES];
extern const uint8_t flow_type_proto[FLOW_NUM_TYPES]; /* IPPROTO_* */

enum { INISIDE, TGTSIDE, SIDES };

/** enum flow_meter - The limits that a flow may be under at the same time */
enum flow_meter { FLOW_METER_RULE, FLOW_METER_GUEST, FLOW_METERS };

/** enum flow_why - Reason in the last log line of a flow */
enum flow_why {
	WHY_NONE,
	WHY_DONE, /* both directions ended in order */
	WHY_RST_GUEST,
	WHY_RST_PEER, /* or another socket error */
	WHY_REFUSED,
	WHY_UNREACHABLE,
	WHY_TIMEOUT,
	WHY_IDLE,
	WHY_NO_BUFFER,
	WHY_SHUTDOWN,
	WHY_ASKED,   /* somebody wanted it closed */
	WHY_POLICY,  /* the rules of today would not let it in */
	WHY_EVICTED, /* idle, and others needed the room */
	WHY_LIMIT,   /* what it may move in all is used up */
	WHY_NUM
};

extern const char *const flow_why_names[WHY_NUM];

/** struct flowside - Addresses and ports of a side, from our point of view
 * @eaddr:	Endpoint address: the remote party
 * @oaddr:	Our address on that side
 * @eport:	Endpoint port, host order (echo: identifier)
 * @oport:	Our port, host order (echo: identifier)
 */
struct flowside {
	union inany eaddr;
	union inany oaddr;
	uint16_t eport;
	uint16_t oport;
};

/** struct flow_common - The part of an entry that every flow has
 * @state:	enum flow_state
 * @type:	enum flow_type
 * @pif:	enum pif of each side
 * @closed:	Marked for the deferred scan: out of hash, timer and epoll
 * @epoll_id:	Which epoll instance holds the flow: EPOLL_MAIN or EPOLL_GATED
 * @why:	enum flow_why, for the last log line
 * @events:	What its handler has seen happen to it, bits of the handler's
 * @hashed:	The side can be found by flow_lookup()
 * @sharing:	Others need its socket as well: its end gives none back. Asked of
 *		flows that the guest began
 * @tcp_flags:	Union of TCP flags seen, per direction
 * @ready:	Sides that wait in the ready list, a bit each; the list's own
 * @side:	Addresses
 * @fd:		Socket of each side, or -1
 * @interest:	EPOLL* that each @fd is registered for; 0: it is not
 * @generation:	Of this index, for flow_id; survives FREE
 * @rule:	Id of the rule that admitted it
 * @policy:	Generation of the policy that rule was in
 * @listener:	Number of the listening socket it came by, or -1
 * @packets:	Per direction: INISIDE to TGTSIDE is 0, back is 1
 * @bytes:	Payload bytes per direction
 * @created:	ns
 * @last_use:	ns
 * @timer_at:	Deadline wanted, ns; 0: none
 * @timer_slot:	Where the wheel keeps it, 0: nowhere; wheel's own
 * @timer_next:	Wheel's own
 * @timer_prev:	Wheel's own
 * @ready_next:	The list's own
 * @ready_prev:	The list's own
 * @idle_next:	Its list's own (idle.h)
 * @idle_prev:	Its list's own
 * @meter:	What limits it, by enum flow_meter: numbers of meter.h, or 0
 * @waits:	By the side whose bytes wait: the meter that lets it wait, or 0
 * @wait_next:	The meter's own
 * @wait_prev:	The meter's own
 */
struct flow_common {
	uint8_t state;
	uint8_t type;
	uint8_t pif[SIDES];
	bool closed;
	uint8_t epoll_id;
	uint8_t why;
	uint8_t tcp_flags[SIDES];
	uint8_t ready;
	uint16_t events;
	bool hashed[SIDES];
	bool sharing;
	struct flowside side[SIDES];
	int fd[SIDES];
	uint32_t interest[SIDES];
	uint32_t generation;
	uint32_t rule;
	uint32_t policy;
	int32_t listener;
	uint64_t packets[SIDES];
	uint64_t bytes[SIDES];
	uint64_t created;
	uint64_t last_use;
	uint64_t timer_at;
	uint32_t timer_slot;
	uint32_t timer_next;
	uint32_t timer_prev;
	uint32_t ready_next;
	uint32_t ready_prev;
	uint32_t idle_next;
	uint32_t idle_prev;
	uint16_t meter[FLOW_METERS];
	uint16_t waits[SIDES];
	uint32_t wait_next[SIDES];
	uint32_t wait_prev[SIDES];
};

#define FLOW_PRIV_SIZE 344 /* bytes a handler may keep in an entry */

/** struct flow - Entry of the flow table; entries never move
 * @f:		Common part, as everybody reads it
 * @rw:		The same bytes, for table/ to write
 * @priv:	The handler's own (struct tcp_conn, udp_flow, ping_flow)
 */
struct flow {
	_Alignas(64) union {
		const struct flow_common f;
		struct flow_common rw;
	};
	_Alignas(8) unsigned char priv[FLOW_PRIV_SIZE];
};

_Static_assert(sizeof(struct flow) == 640, "ten cache lines, as the docs say");

/** typedef flow_sidx_t - Flow index and side bit in 32 bits */
typedef struct flow_sidx {
	uint32_t side : 1;
	uint32_t flow : 31;
} flow_sidx_t;

_Static_assert(sizeof(flow_sidx_t) == sizeof(uint32_t), "sidx: 32 bits");

#define FLOW_SIDX_NONE ((flow_sidx_t){ .side = 1, .flow = 0x7fffffff })

static inline bool flow_sidx_is_none(flow_sidx_t sidx)
{
	return sidx.flow == 0x7fffffff;
}

/** struct verdict - Python's answer to a miss
 * @action:	enum verdict_action
 * @pif:	Target pif
 * @side:	Target side; zero @oport: any; zero @oaddr: any
 * @rule:	Id of the rule that decided
 * @generation:	Of the policy that the rule is in
 * @proxy:	Version of the PROXY protocol by which the target is told who
 *		its client is; 0: it is not
 * @crosses:	Of datagrams: if nobody has the port there, ask once more
 */
struct verdict {
	uint8_t action;
	uint8_t pif;
	struct flowside side;
	uint32_t rule;
	uint32_t generation;
	uint8_t proxy;
	bool crosses;
};

#define VERDICT_PROXY_MAX 2

enum verdict_action {
	VERDICT_DROP,
	VERDICT_FORWARD,
	VERDICT_SPLICE,
	VERDICT_REJECT,
	VERDICT_INSPECT,
	VERDICT_NUM
};

extern const char *const verdict_action_names[VERDICT_NUM];

#endif /* PASSTPY_TABLE_FLOW_H */
