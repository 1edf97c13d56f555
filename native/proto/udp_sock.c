/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_sock.c - Options and binding of UDP sockets */

#include "proto/udp_sock.h"

#include <errno.h>
#include <netinet/udp.h>

#include "base/sys.h"
#include "proto/dgram.h"
#include "proto/udp_flow.h"

/* Asked of the kernel, which gives what net.core.[rw]mem_max allows: room for
 * some milliseconds of 10 Gbit/s while we serve other flows */
#define UDP_SOCK_BUF (4 << 20)
/* Datagrams that udp_forget() takes: far more than can come in between */
#define UDP_FORGET_MAX 64

void udp_set_buffers(int fd)
{
	static const int size = UDP_SOCK_BUF;

	sys_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	sys_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void udp_setup(int fd)
{
	static const int on = 1;

	sys_setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on));
	udp_set_buffers(fd);
}

int udp_watch(struct ctx *c, struct flow *flow, unsigned sidei, int fd)
{
	int rc = flow_adopt(&c->epoll, &c->ft, flow, sidei, fd, c->now);

	if (rc)
		close(fd);
	return rc;
}

int udp_bind_shared(const struct ctx *c, int fd, const struct listener *l,
		    bool v4, const union inany *addr, uint16_t port)
{
	static const int on = 1, off;
	int rc;

	sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	sys_setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	rc = dgram_bind(c, fd, v4, addr, port);
	sys_setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
	return rc;
}

struct listener *udp_listener_of(struct ctx *c, const struct flow *flow,
				 unsigned sidei, uint32_t serial)
{
	return listener_known(&c->listeners, IPPROTO_UDP,
			      (enum pif)flow->f.pif[sidei],
			      flow->f.side[sidei].oport, serial);
}

struct listener *udp_listener_asked(struct ctx *c, const struct flow *flow,
				    const struct miss *m)
{
	struct listener *l =
		m->listener < 0 ?
			NULL :
			listener_get(&c->listeners, (uint32_t)m->listener);

	/* The number may be another listener's by now */
	return l ? udp_listener_of(c, flow, INISIDE, l->serial) : NULL;
}

int udp_connect_ini(struct ctx *c, struct flow *flow, const struct listener *l,
		    int fd)
{
	const struct flowside *ini = &flow->f.side[INISIDE];
	bool v4 = udp_is_v4(flow, INISIDE);
	int rc;

	if (fd < 0)
		fd = dgram_socket(c, flow, IPPROTO_UDP, v4);
	if (fd < 0)
		return fd;

	rc = udp_bind_shared(c, fd, l, v4, &ini->oaddr, ini->oport);
	if (!rc)
		rc = dgram_connect(c, fd, &ini->eaddr, ini->eport);
	if (rc) {
		close(fd);
		return rc;
	}
	rc = udp_watch(c, flow, INISIDE, fd);
	return rc ? rc : fd;
}

void udp_forget(int fd)
{
	uint8_t byte;

	for (unsigned n = 0; n < UDP_FORGET_MAX; n++)
		if (sys_recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) < 0)
			return;
}

void udp_close(struct ctx *c, struct flow *flow)
{
	/* No other descriptor refers to the socket: closing it is also what
	 * takes it out of epoll */
	for (unsigned sidei = 0; sidei < SIDES; sidei++) {
		int fd = flow_take_fd(&c->ft, flow, sidei);

		if (fd >= 0)
			close(fd);
	}
}
