/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dgram.c - Datagram sockets, as UDP and ping flows use them
 *
 * IP_MTU_DISCOVER is left at the system's default, which is IP_PMTUDISC_WANT
 * unless the administrator wants otherwise. A guest sets DF on almost anything
 * (Linux does on every datagram that fits its own MTU), and its MTU is often
 * far above the host's, so that DF says nothing about what the application
 * wants: with IP_PMTUDISC_DO every datagram above the host's MTU would be
 * refused, while the same program run on the host would see it fragmented.
 * "Fragmentation needed" from the path still comes back through the error
 * queue, and reaches the guest.
 */

#include "proto/dgram.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/sys.h"
#include "proto/icmp_error.h"

int dgram_socket(struct ctx *c, const struct flow *flow, uint8_t ipproto,
		 bool v4)
{
	static const int on = 1;
	int fd;

	fd = sys_socket(v4 ? AF_INET : AF_INET6,
			SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, ipproto);
	if (fd < 0) {
		int err = errno;

		if (err == EMFILE || err == ENFILE) {
			count(&c->cnt, CNT_SOCK_EMFILE);
			flow_log(&c->log, c->now, SOCK_LIMIT, flow, err, 0, 0,
				 0);
		}
		return -err;
	}

	/* A wildcard would take the port in the other family, too */
	if (!v4)
		sys_setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	icmp_error_keep(fd, v4, true);
	return fd;
}

int dgram_outbound(const struct ctx *c, int fd, bool v4)
{
	const char *name = c->outbound_if[v4 ? 0 : 1];

	if (!name[0])
		return 0;
	if (sys_setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name,
			   (socklen_t)strlen(name)))
		return -errno;
	return 0;
}

int dgram_bind(const struct ctx *c, int fd, bool v4, const union inany *addr,
	       uint16_t port)
{
	union sockaddr_inany sa;
	union inany any;
	socklen_t len;

	if (inany_is_any(addr)) {
		if (v4)
			inany_from_v4(&any, (struct in_addr){ 0 });
		else
			inany_from_v6(&any, &in6addr_any);
		addr = &any;
	}
	len = inany_to_sa(&sa, addr, port, c->scope_id);
	return sys_bind(fd, &sa.sa, len) ? -errno : 0;
}

int dgram_connect(const struct ctx *c, int fd, const union inany *addr,
		  uint16_t port)
{
	union sockaddr_inany sa;
	socklen_t len = inany_to_sa(&sa, addr, port, c->scope_id);

	return sys_connect(fd, &sa.sa, len) ? -errno : 0;
}

void dgram_disconnect(int fd)
{
	static const struct sockaddr none = { .sa_family = AF_UNSPEC };

	(void)sys_connect(fd, &none, sizeof(none));
}

int dgram_name(int fd, union inany *addr, uint16_t *port)
{
	union sockaddr_inany sa;
	socklen_t len = sizeof(sa);

	if (sys_getsockname(fd, &sa.sa, &len))
		return -errno;
	return inany_from_sa(addr, port, &sa);
}

void dgram_set_ttl(int fd, bool v4, uint8_t ttl)
{
	int value = ttl;

	/* 0 is refused: the datagram then leaves with the last TTL set */
	if (v4)
		sys_setsockopt(fd, IPPROTO_IP, IP_TTL, &value, sizeof(value));
	else
		sys_setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &value,
			       sizeof(value));
}

int dgram_take_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = 0;

	sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return err;
}

uint32_t dgram_interest(const struct flow *flow, unsigned sidei)
{
	(void)flow;
	(void)sidei;
	return EPOLLIN;
}
