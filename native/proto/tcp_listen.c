/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_listen.c - Connections accepted by listening sockets: whose are they?
 *
 * Python decides. When no descriptor is left, a spare one is given up to reset
 * who waits, since a listener that stays readable would keep us awake.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/reset.h"
#include "base/sys.h"
#include "proto/tcp_conn.h"

/* A client without a port is offered this many; so few of them are in use that
 * the first is free */
#define CLIENT_TRIES 64

/* name_nameless() - A client of a UNIX socket comes from its name, and from a port
 * that no other has; false: there is none */
static bool name_nameless(struct ctx *c, const struct listener *l,
			  struct flowside *key)
{
	key->eaddr = l->addr;
	for (unsigned i = 0; i < CLIENT_TRIES; i++) {
		key->eport = listeners_next_client(&c->listeners);
		if (!stage_find(&c->stage, IPPROTO_TCP, l->pif, key) &&
		    flow_sidx_is_none(
			    flow_lookup(&c->ft, IPPROTO_TCP, l->pif, key)))
			return true;
	}
	return false;
}

/* name_client() - Between which addresses was a connection accepted? */
static bool name_client(struct ctx *c, const struct listener *l, int fd,
			const union sockaddr_inany *peer, struct flowside *key)
{
	union sockaddr_inany sa;
	socklen_t len = sizeof(sa);

	if (l->nameless)
		return name_nameless(c, l, key);
	return !inany_from_sa(&key->eaddr, &key->eport, peer) &&
	       (!inany_is_any(&l->addr) ||
		(!sys_getsockname(fd, &sa.sa, &len) &&
		 !inany_from_sa(&key->oaddr, &key->oport, &sa)));
}

static void accepted(struct ctx *c, struct listener *l, uint32_t number, int fd,
		     const union sockaddr_inany *peer)
{
	struct flowside key = { .oaddr = l->addr, .oport = l->port };

	if (!name_client(c, l, fd, peer, &key)) {
		(void)close(fd);
		return;
	}
	if (!admit_outside(&c->admit, &c->ft, l, &key.eaddr, c->now)) {
		(void)close(fd);
		return;
	}
	count(&c->cnt, CNT_MISS);
	if (stage_find(&c->stage, IPPROTO_TCP, l->pif, &key) ||
	    !stage_add(&c->stage, IPPROTO_TCP, l->pif, &key, (int32_t)number,
		       fd, c->now))
		(void)close(fd);
}

/* tcp_spare_take() - A descriptor for refuse_one(), or -1 if even that failed */
int tcp_spare_take(const struct ctx *c)
{
	return sys_fcntl(c->epoll.fd[EPOLL_MAIN], F_DUPFD_CLOEXEC, 0);
}

/* refuse_one() - No descriptor is left: reset the next connection, which would
 * else keep the listener readable, and us awake, until somebody closes one
 *
 * Return: 0, or -errno
 */
static int refuse_one(struct ctx *c, const struct listener *l)
{
	int fd, err;

	if (tcp_shared(c)->spare_fd >= 0)
		(void)close(tcp_shared(c)->spare_fd);
	fd = sys_accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	err = fd < 0 ? errno : 0;
	if (fd >= 0) {
		reset_on_close(fd);
		(void)close(fd);
	}
	tcp_shared(c)->spare_fd = tcp_spare_take(c);
	return -err;
}

/* tcp_listen() - The handler's listen() */
void tcp_listen(struct ctx *c, struct listener *l, uint32_t number)
{
	if (!admit_is_open(l, c->now)) { /* they wait in the backlog */
		listener_pause(&c->listeners, &c->epoll, number, c->now);
		return;
	}
	do {
		union sockaddr_inany sa; /* of a UNIX socket's peer: cut off */
		socklen_t len = sizeof(sa);
		int fd = sys_accept4(l->fd, &sa.sa, &len,
				     SOCK_NONBLOCK | SOCK_CLOEXEC);

		budget_spend(&c->budget, 4 * WORK_CALL);
		if (fd >= 0) {
			accepted(c, l, number, fd, &sa);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		count(&c->cnt, CNT_ACCEPT_ERRORS);
		flow_log(&c->log, c->now, SOCK_LIMIT, NULL, errno, 0, 0, 0);
		if ((errno != EMFILE && errno != ENFILE) || refuse_one(c, l))
			return;
	} while (!budget_is_spent(&c->budget));
}
