/* SPDX-License-Identifier: GPL-2.0-or-later */
/* listen.h - Listening sockets by the number Python gave them */
#ifndef PASSTPY_TABLE_LISTEN_H
#define PASSTPY_TABLE_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "table/epoll.h"

/* Ports of clients that have none: no system ports, which some servers trust, and
 * below those that Linux gives to who has some */
#define CLIENT_PORT_MIN 1024
#define CLIENT_PORT_MAX 32767

/* Numbers of listening sockets: what the port options can ask for, with room
 * for a second socket per port of the namespace */
#define LISTEN_MAX (1 << 21)

#define LISTEN_PAUSE	  (5 * NSEC_PER_MSEC)
#define LISTEN_PAUSED_MAX 64 /* of those that are too many, none is paused */

/** struct listener - A socket from which flows may start
 * @fd:		Bound socket; owned
 * @port:	Local port, host order
 * @sharers:	Sockets of flows that share its port
 * @next:	Number + 1 of the next one with the same protocol, pif and port;
 *		0: none
 * @ipproto:	IPPROTO_TCP or IPPROTO_UDP; 0 when the slot is free
 * @pif:	PIF_HOST, or PIF_SPLICE for a socket of the namespace
 * @nameless:	A UNIX socket: its clients have no address
 * @serial:	Which one it is, whatever its number; from 1 on
 * @addr:	Local address; unspecified for a wildcard socket
 * @paid:	Tokens for new flows that were spent: see admit.h
 */
struct listener {
	int fd;
	uint16_t port;
	uint16_t sharers;
	uint32_t next	  : 22;
	uint32_t ipproto  : 5;
	uint32_t pif	  : 2;
	uint32_t nameless : 1;
	uint32_t serial;
	union inany addr;
	uint64_t paid;
};

_Static_assert(LISTEN_MAX < 1 << 22, "a number + 1 fits in @next");
_Static_assert(sizeof(struct listener) == 40, "80 MiB are reserved for all");

/** struct listeners - Reserved range of slots, touched on demand
 * @slot:	By number. Numbers are sparse: automatic forwarding numbers a
 *		socket after its port
 * @top:	Slots at and above were never used
 * @by_port:	Number + 1 of the first listener of each protocol, pif and port,
 *		behind @slot in the same range; 0: none
 * @serial:	The last one that a listener was given
 * @client_port:	The last one that a client without one was given
 * @paused:	Numbers of those that are not heard until @resume_at
 * @n_paused:	How many
 * @resume_at:	ns, or UINT64_MAX
 */
struct listeners {
	struct listener *slot;
	uint32_t top;
	uint32_t *by_port;
	uint32_t serial;
	uint16_t client_port;
	uint32_t paused[LISTEN_PAUSED_MAX];
	unsigned n_paused;
	uint64_t resume_at;
};

int listeners_init(struct listeners *ls);
void listeners_free(struct listeners *ls); /* closes all */

/**
 * listener_add() - Take over a bound socket and register it
 * @pif:	Where it lives: PIF_HOST or PIF_SPLICE
 * @number:	0 to LISTEN_MAX - 1, must be free
 * Return: 0; -EEXIST, -ERANGE, or errno of getsockname() or epoll_ctl(); the
 *	   socket stays the caller's then
 */
int listener_add(struct listeners *ls, const struct epoll_set *es, int fd,
		 uint8_t ipproto, enum pif pif, uint32_t number);
/**
 * listener_add_nameless() - The same for a UNIX stream socket, of the host
 * @name:	What its clients appear to have asked for, and to come from: an
 *		address
 * @port:	And the port that they appear to have asked for
 * Return: 0; -EPROTOTYPE it is no UNIX stream socket; else as listener_add()
 */
int listener_add_nameless(struct listeners *ls, const struct epoll_set *es,
			  int fd, uint32_t number, const union inany *name,
			  uint16_t port);
int listener_del(struct listeners *ls, const struct epoll_set *es,
		 uint32_t number);
/**
 * listener_renumber() - Let a listening socket have another number
 *
 * It goes on listening meanwhile: nothing that waits in it is lost.
 *
 * Return: 0; -ENOENT, -EEXIST, -ERANGE
 */
int listener_renumber(struct listeners *ls, const struct epoll_set *es,
		      uint32_t old, uint32_t number);
struct listener *listener_get(struct listeners *ls, uint32_t number);

/* listeners_next_client() - Another port for a client that has none */
uint16_t listeners_next_client(struct listeners *ls);

/* listener_pause() - Do not hear a listener for LISTEN_PAUSE: what comes waits
 * in its queue, or is dropped by the kernel, which costs us nothing */
void listener_pause(struct listeners *ls, const struct epoll_set *es,
		    uint32_t number, uint64_t now);
/* listeners_resume() - Hear those again whose time it is */
void listeners_resume(struct listeners *ls, const struct epoll_set *es,
		      uint64_t now);

/* listener_on_port() - First listener of a port, whatever its address, or NULL;
 * looks at no other port's */
struct listener *listener_on_port(const struct listeners *ls, uint8_t ipproto,
				  enum pif pif, uint16_t port);
/* listener_next() - Next one of the same protocol, pif and port, or NULL */
struct listener *listener_next(const struct listeners *ls,
			       const struct listener *l);
/**
 * listener_known() - The listener that somebody remembers
 *
 * A number is another listener's once its own was closed, and a listener gets
 * another number when the rules change; a serial stays.
 *
 * @serial:	Which one; 0: none
 * Return: NULL if it was closed
 */
struct listener *listener_known(const struct listeners *ls, uint8_t ipproto,
				enum pif pif, uint16_t port, uint32_t serial);

#endif /* PASSTPY_TABLE_LISTEN_H */
