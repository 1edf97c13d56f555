/* SPDX-License-Identifier: GPL-2.0-or-later */
/* epoll.h - What an epoll event refers to, and the one door into epoll */
#ifndef PASSTPY_TABLE_EPOLL_H
#define PASSTPY_TABLE_EPOLL_H

#include <stdint.h>

#include "table/flow.h"
#include "table/flow_table.h"

enum epoll_type {
	EPOLL_NONE,
	EPOLL_TAP,
	EPOLL_ROOM,
	EPOLL_GATE,
	EPOLL_TIMER,
	EPOLL_LISTEN,
	EPOLL_FLOW,
	EPOLL_SHARED,
	EPOLL_NUM_TYPES
};

extern const char *const epoll_type_names[];

/** union epoll_ref - What epoll hands back: fd, type, and whose it is
 * @fd:		File descriptor (24 bits: RLIMIT_NOFILE is far below)
 * @type:	enum epoll_type
 * @sidx:	Flow and side, for flow sockets
 * @data:	Listener number, for listening sockets; of a socket that several
 *		flows share, their type and its index: epoll_shared()
 */
union epoll_ref {
	struct {
		uint32_t fd   : 24;
		uint32_t type : 8;
		union {
			flow_sidx_t sidx;
			uint32_t data;
		};
	};
	uint64_t u64;
};

/* epoll_shared() - @data of a socket that flows of a type share, the handler's
 * own @index of it (24 bits) */
static inline uint32_t epoll_shared(enum flow_type type, uint32_t index)
{
	return (uint32_t)type << 24 | index;
}

static inline enum flow_type epoll_shared_type(union epoll_ref ref)
{
	return (enum flow_type)(ref.data >> 24);
}

static inline uint32_t epoll_shared_index(union epoll_ref ref)
{
	return ref.data & 0xffffff;
}

_Static_assert(sizeof(union epoll_ref) == sizeof(uint64_t), "epoll_ref");

enum { EPOLL_MAIN, EPOLL_GATED, EPOLL_SETS };

/**
 * typedef flow_interest_fn - What a side's socket waits for, by the flow's state
 *
 * Return: EPOLL*; 0: nothing, not even errors. EPOLLERR alone: errors, which
 * need no asking.
 */
typedef uint32_t (*flow_interest_fn)(const struct flow *flow, unsigned sidei);

/** struct epoll_set - The epoll instances; a flow is in the one of its @epoll_id
 * @fd:		EPOLL_MAIN: what Python's loop watches: tap and timer, and all
 *		the rest unless there is a gate
 *		EPOLL_GATED: sockets whose bytes go to a guest that can be full;
 *		itself registered in the first as EPOLL_GATE, whose interest is
 *		the gate. Or -1
 * @interest:	By type of flow: what its sockets wait for, as its handler says
 */
struct epoll_set {
	int fd[EPOLL_SETS];
	flow_interest_fn interest[FLOW_NUM_TYPES];
};

/* epoll_sockets() - Instance that flows and listening sockets belong to */
static inline uint8_t epoll_sockets(const struct epoll_set *es)
{
	return es->fd[EPOLL_GATED] >= 0 ? EPOLL_GATED : EPOLL_MAIN;
}

/**
 * flow_epoll_set() - The only way a flow's socket enters or changes in epoll
 * @es:		Epoll instances
 * @ft:		Flow table (for the flow's index and the log)
 * @flow:	Flow, which has a socket on that side
 * @sidei:	Side whose socket it is
 * @now:	ns, for the log
 *
 * What the socket waits for is asked of the flow's handler. When it waits for
 * that already nothing is done, unless it is edge-triggered: then epoll tells
 * again what is ready, for a handler that stopped early.
 *
 * Return: 0, or -errno of epoll_ctl()
 */
int flow_epoll_set(const struct epoll_set *es, struct flow_table *ft,
		   struct flow *flow, unsigned sidei, uint64_t now);

/**
 * flow_adopt() - Make a socket a flow's, and wait for what its handler wants
 *
 * Return: 0; or -errno of epoll_ctl(), and the socket stays the caller's
 */
int flow_adopt(const struct epoll_set *es, struct flow_table *ft,
	       struct flow *flow, unsigned sidei, int fd, uint64_t now);

/**
 * flow_exchange() - Make another socket a flow's, in place of the one it has
 * @ret_old:	Filled with that one, in no epoll instance any more
 *
 * Return: 0; or -errno of epoll_ctl(), and all is as before
 */
int flow_exchange(const struct epoll_set *es, struct flow_table *ft,
		  struct flow *flow, unsigned sidei, int fd, int *ret_old,
		  uint64_t now);

/* flow_epoll_del() - Take a flow's socket out, before closing it is shared */
void flow_epoll_del(const struct epoll_set *es, struct flow *flow,
		    unsigned sidei);

/* epoll_add_fixed() - Register what is no flow: tap, timer, listening socket */
int epoll_add_fixed(const struct epoll_set *es, enum epoll_type type, int fd,
		    uint32_t data, uint32_t events);

/* epoll_mod_fixed() - Wait for other events of it */
void epoll_mod_fixed(const struct epoll_set *es, enum epoll_type type, int fd,
		     uint32_t data, uint32_t events);

/* epoll_del_fixed() - Take it out again; closing alone is not enough if the
 * socket is shared */
void epoll_del_fixed(const struct epoll_set *es, enum epoll_type type, int fd);

#endif /* PASSTPY_TABLE_EPOLL_H */
