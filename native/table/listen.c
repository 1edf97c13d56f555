/* SPDX-License-Identifier: GPL-2.0-or-later */
/* listen.c - Listening sockets by the number Python gave them
 *
 * Every flow of a guest's socket asks whether its port is one that we listen
 * on ourselves. With automatic ports numbers go up to LISTEN_MAX, so that a walk
 * over the slots would cost more than everything else of a flow: listeners of
 * one port are chained, and the chain of a port is found by its number.
 */

#include "table/listen.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/room.h"
#include "base/sock.h"
#include "base/sys.h"

#define PORTS (1U << 16)
/* Protocols (TCP, UDP) times pifs (HOST, SPLICE) that a port may be one of */
#define PORT_KINDS   4U
#define SLOT_BYTES   (LISTEN_MAX * sizeof(struct listener))
#define LISTEN_BYTES (SLOT_BYTES + PORT_KINDS * PORTS * sizeof(uint32_t))

/**
 * listeners_init() - Reserve the slots
 *
 * Return: 0, or -ENOMEM
 */
int listeners_init(struct listeners *ls)
{
	void *slot = room_reserve(LISTEN_BYTES);

	if (slot == MAP_FAILED)
		return -ENOMEM;
	ls->slot = slot;
	ls->by_port = (uint32_t *)(void *)((uint8_t *)slot + SLOT_BYTES);
	ls->top = 0;
	ls->resume_at = UINT64_MAX;
	return 0;
}

void listeners_free(struct listeners *ls)
{
	if (!ls->slot)
		return;
	for (uint32_t i = 0; i < ls->top; i++)
		if (ls->slot[i].ipproto)
			close(ls->slot[i].fd);
	munmap(ls->slot, LISTEN_BYTES);
	*ls = (struct listeners){ 0 };
}

/* chain() - Where the listeners of a port begin */
static uint32_t *chain(const struct listeners *ls, uint8_t ipproto, uint8_t pif,
		       uint16_t port)
{
	uint32_t kind = (ipproto == IPPROTO_TCP ? 0U : 2U) +
			(pif == PIF_SPLICE ? 1U : 0U);

	return &ls->by_port[kind * PORTS + port];
}

static struct listener *chained(const struct listeners *ls, uint32_t link)
{
	return link ? &ls->slot[link - 1] : NULL;
}

static void chain_add(struct listeners *ls, struct listener *l)
{
	uint32_t *link = chain(ls, l->ipproto, l->pif, l->port);

	l->next = *link;
	*link = (uint32_t)(l - ls->slot) + 1;
}

static void chain_del(struct listeners *ls, const struct listener *l)
{
	uint32_t *first = chain(ls, l->ipproto, l->pif, l->port);
	struct listener *before = chained(ls, *first);

	if (before == l) {
		*first = l->next;
		return;
	}
	while (chained(ls, before->next) != l)
		before = chained(ls, before->next);
	before->next = l->next;
}

struct listener *listener_on_port(const struct listeners *ls, uint8_t ipproto,
				  enum pif pif, uint16_t port)
{
	return chained(ls, *chain(ls, ipproto, (uint8_t)pif, port));
}

struct listener *listener_next(const struct listeners *ls,
			       const struct listener *l)
{
	return chained(ls, l->next);
}

struct listener *listener_known(const struct listeners *ls, uint8_t ipproto,
				enum pif pif, uint16_t port, uint32_t serial)
{
	struct listener *l = NULL;

	if (serial)
		l = listener_on_port(ls, ipproto, pif, port);
	while (l && l->serial != serial)
		l = listener_next(ls, l);
	return l;
}

/* local_addr() - Where a socket is bound; unspecified if that is anywhere */
static int local_addr(struct listener *l, int fd)
{
	union sockaddr_inany sa = { 0 };
	socklen_t len = sizeof(sa);
	int rc;

	if (sys_getsockname(fd, &sa.sa, &len))
		return -errno;
	rc = inany_from_sa(&l->addr, &l->port, &sa);
	if (rc)
		return rc;
	if (inany_is_any(&l->addr))
		l->addr = (union inany){ 0 };
	return 0;
}

/* add() - Register a socket, and put it where its number and its port find it */
static int add(struct listeners *ls, const struct epoll_set *es,
	       const struct listener *l, uint32_t number)
{
	int rc;

	if (number >= LISTEN_MAX)
		return -ERANGE;
	if (listener_get(ls, number))
		return -EEXIST;
	rc = epoll_add_fixed(es, EPOLL_LISTEN, l->fd, number, EPOLLIN);
	if (rc)
		return rc;
	if (ls->top <= number)
		ls->top = number + 1;
	ls->slot[number] = *l;
	ls->slot[number].serial = ++ls->serial ?: ++ls->serial;
	chain_add(ls, &ls->slot[number]);
	return 0;
}

int listener_add(struct listeners *ls, const struct epoll_set *es, int fd,
		 uint8_t ipproto, enum pif pif, uint32_t number)
{
	struct listener l = { .fd = fd,
			      .ipproto = ipproto,
			      .pif = (uint8_t)pif };
	int rc = local_addr(&l, fd);

	return rc ? rc : add(ls, es, &l, number);
}

int listener_add_nameless(struct listeners *ls, const struct epoll_set *es,
			  int fd, uint32_t number, const union inany *name,
			  uint16_t port)
{
	struct listener l = { .fd = fd,
			      .ipproto = IPPROTO_TCP,
			      .pif = PIF_HOST,
			      .port = port,
			      .nameless = true,
			      .addr = *name };
	int type = 0;
	socklen_t len = sizeof(type);

	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -errno;
	if (type != SOCK_STREAM || !sock_is_unix(fd))
		return -EPROTOTYPE;
	return add(ls, es, &l, number);
}

/**
 * listener_del() - Close a listening socket
 *
 * Return: 0, or -ENOENT
 */
int listener_del(struct listeners *ls, const struct epoll_set *es,
		 uint32_t number)
{
	struct listener *l = listener_get(ls, number);

	if (!l)
		return -ENOENT;
	epoll_del_fixed(es, EPOLL_LISTEN, l->fd);
	close(l->fd);
	chain_del(ls, l);
	*l = (struct listener){ .fd = -1 };
	return 0;
}

int listener_renumber(struct listeners *ls, const struct epoll_set *es,
		      uint32_t old, uint32_t number)
{
	struct listener *l = listener_get(ls, old);

	if (!l)
		return -ENOENT;
	if (number >= LISTEN_MAX)
		return -ERANGE;
	if (listener_get(ls, number))
		return -EEXIST;
	epoll_mod_fixed(es, EPOLL_LISTEN, l->fd, number, EPOLLIN);
	chain_del(ls, l);
	if (ls->top <= number)
		ls->top = number + 1;
	ls->slot[number] = *l;
	*l = (struct listener){ .fd = -1 };
	chain_add(ls, &ls->slot[number]);
	return 0;
}

/* listener_get() - Listener of a number, or NULL */
struct listener *listener_get(struct listeners *ls, uint32_t number)
{
	if (number >= ls->top || !ls->slot[number].ipproto)
		return NULL;
	return &ls->slot[number];
}

uint16_t listeners_next_client(struct listeners *ls)
{
	if (ls->client_port < CLIENT_PORT_MIN ||
	    ls->client_port >= CLIENT_PORT_MAX)
		ls->client_port = CLIENT_PORT_MIN - 1;
	return ++ls->client_port;
}

void listener_pause(struct listeners *ls, const struct epoll_set *es,
		    uint32_t number, uint64_t now)
{
	struct listener *l = listener_get(ls, number);

	for (unsigned i = 0; i < ls->n_paused; i++)
		if (ls->paused[i] == number)
			return;
	if (!l || ls->n_paused == LISTEN_PAUSED_MAX)
		return;
	epoll_mod_fixed(es, EPOLL_LISTEN, l->fd, number, 0);
	if (!ls->n_paused)
		ls->resume_at = now + LISTEN_PAUSE;
	ls->paused[ls->n_paused++] = number;
}

void listeners_resume(struct listeners *ls, const struct epoll_set *es,
		      uint64_t now)
{
	if (now < ls->resume_at)
		return;
	while (ls->n_paused) {
		uint32_t number = ls->paused[--ls->n_paused];
		struct listener *l = listener_get(ls, number);

		if (l) /* it may be another one by now, which does no harm */
			epoll_mod_fixed(es, EPOLL_LISTEN, l->fd, number,
					EPOLLIN);
	}
	ls->resume_at = UINT64_MAX;
}
