/* SPDX-License-Identifier: GPL-2.0-or-later */
/* peers.h - Who is on the other side of the datapath: sockets on loopback, and
 * somebody on the way who sends ICMP errors */
#ifndef PASSTPY_TESTS_PEERS_H
#define PASSTPY_TESTS_PEERS_H

#include <netinet/icmp6.h>

#include "world.h"

static uint8_t sink[65536];

static inline struct sockaddr_in6 loopback(uint16_t port, bool v6)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6,
				   .sin6_port = htons(port),
				   .sin6_addr = in6addr_loopback };

	if (!v6)
		inet_pton(AF_INET6, "::ffff:127.0.0.1", &sa.sin6_addr);
	return sa;
}

static inline void keep_peer(int fd)
{
	int *slot = &world.peer[below(PEERS)];

	if (fd < 0)
		return;
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

/* join() - A pair of sockets: a peer's, and one for the datapath */
static inline int join(void)
{
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	keep_peer(ends[0]);
	return ends[1];
}

static inline void close_peer(int *fd)
{
	struct linger reset = { .l_onoff = 1 };

	if (*fd < 0)
		return;
	if (one_in(2))
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(*fd);
	*fd = -1;
}

static inline void connect_inbound(void)
{
	struct sockaddr_in6 sa =
		loopback(world.tcp_in[below(IN_NUM)], one_in(2));
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);

	(void)connect(fd, (struct sockaddr *)&sa, sizeof(sa));
	keep_peer(fd);
}

/* send_datagrams() - Several at once to a port of the guest, or to one of the
 * namespace's, from a peer that is new now and then */
static inline void send_datagrams(void)
{
	struct sockaddr_in6 sa =
		loopback(world.udp_in[below(IN_NUM)], one_in(2));
	int *fd = &world.udp_peer[below(UDP_PEERS)];

	if (*fd >= 0 && one_in(10)) {
		close(*fd);
		*fd = -1;
	}
	if (*fd < 0)
		*fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	for (uint32_t n = 1 + below(8); n; n--)
		(void)sendto(*fd, payload, below(PAYLOAD), 0,
			     (struct sockaddr *)&sa, sizeof(sa));
	(void)recv(*fd, sink, sizeof(sink), 0);
	if (one_in(10)) /* longer than any MTU */
		(void)sendto(*fd, sink, below(65000), 0, (struct sockaddr *)&sa,
			     sizeof(sa));
}

static inline void play_echo(void)
{
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	ssize_t n = recvfrom(world.udp_fd, sink, sizeof(sink), 0,
			     (struct sockaddr *)&sa, &len);

	if (n < 0 || one_in(3))
		return;
	for (uint32_t k = one_in(4) ? 1 + below(8) : 1; k; k--)
		(void)sendto(world.udp_fd, sink, (size_t)n, 0,
			     (struct sockaddr *)&sa, len);
}

static inline void play_connections(void)
{
	keep_peer(accept4(world.tcp_fd, NULL, NULL, SOCK_NONBLOCK));
	for (unsigned i = 0; i < 4; i++) {
		int *fd = &world.peer[below(PEERS)];

		if (*fd < 0)
			continue;
		if (one_in(2))
			(void)recv(*fd, sink, sizeof(sink), 0);
		if (one_in(2))
			(void)send(*fd, sink, below(sizeof(sink)),
				   MSG_NOSIGNAL);
		if (one_in(20))
			(void)send(*fd, sink, 1, MSG_NOSIGNAL | MSG_OOB);
		if (one_in(20))
			shutdown(*fd, SHUT_WR);
		if (one_in(20))
			close_peer(fd);
	}
}

/* Somebody on the way */

/* some_flow() - An open flow with a socket of the host on its target's side */
static inline const struct flow *some_flow(void)
{
	const struct flow_table *ft = &ctx_of()->ft;
	uint32_t first = below(ft->top + 1);

	for (uint32_t k = 0; k < ft->top; k++) {
		const struct flow *flow = &ft->flows[(first + k) % ft->top];

		if (flow->f.state == FLOW_ACTIVE && !flow->f.closed &&
		    flow->f.pif[TGTSIDE] == PIF_HOST)
			return flow;
	}
	return NULL;
}

/* l4_of() - The first bytes of what a flow's socket has sent, for a quote */
static inline size_t l4_of(const struct flow *flow, uint8_t *l4)
{
	const struct flowside *tgt = &flow->f.side[TGTSIDE];
	uint16_t ports[2] = { htons(tgt->oport), htons(tgt->eport) };
	size_t len = 8 + below(1400);

	memset(l4, 0, len);
	memcpy(l4, ports, sizeof(ports));
	l4[5] = (uint8_t)len;
	if (flow->f.type == FLOW_PING4 || flow->f.type == FLOW_PING6) {
		l4[0] = flow->f.type == FLOW_PING4 ? 8 : 128;
		l4[1] = 0;
		memcpy(l4 + 4, ports, 2);
	}
	return len;
}

static inline uint8_t proto_of(const struct flow *flow)
{
	switch (flow->f.type) {
	case FLOW_TCP:
	case FLOW_TCP_SPLICE:
		return IPPROTO_TCP;
	case FLOW_PING4:
		return IPPROTO_ICMP;
	case FLOW_PING6:
		return IPPROTO_ICMPV6;
	default:
		return IPPROTO_UDP;
	}
}

static inline void forge4(const struct flow *flow)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint8_t buf[2048] = { (uint8_t)(one_in(8) ? below(256) : 3),
			      (uint8_t)below(16) };
	struct ip4_hdr *ip = (struct ip4_hdr *)(buf + 8);
	size_t len = l4_of(flow, buf + 28);
	uint16_t check;

	if (one_in(4))
		buf[0] = one_in(2) ? 11 : 12;
	any_bytes(buf + 4, 4);
	*ip = (struct ip4_hdr){
		.ver_ihl = 0x45,
		.tot_len = htons((uint16_t)(20 + len)),
		.ttl = 1,
		.protocol = proto_of(flow),
		.saddr = htonl(INADDR_LOOPBACK),
		.daddr = flow->f.side[TGTSIDE].eaddr.v4.a4.s_addr,
	};
	ip->check = (uint16_t)~csum_fold(csum_add(ip, sizeof(*ip), 0));
	check = (uint16_t)~csum_fold(csum_add(buf, 28 + len, 0));
	memcpy(buf + 2, &check, sizeof(check));
	(void)sendto(world.forge_fd[0], buf, 28 + len, 0,
		     (struct sockaddr *)&sa, sizeof(sa));
}

static inline void forge6(const struct flow *flow)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6,
				   .sin6_addr = in6addr_loopback };
	uint8_t buf[2048] = { (uint8_t)(one_in(8) ? below(256) : 1 + below(4)),
			      (uint8_t)below(8) };
	struct ip6_hdr_ *ip = (struct ip6_hdr_ *)(buf + 8);
	size_t len = l4_of(flow, buf + 48);

	any_bytes(buf + 4, 4);
	*ip = (struct ip6_hdr_){ .vtc_flow = htonl(6U << 28),
				 .payload_len = htons((uint16_t)len),
				 .nexthdr = proto_of(flow),
				 .hop_limit = 1 };
	memcpy(ip->saddr, &in6addr_loopback, 16);
	memcpy(ip->daddr, &flow->f.side[TGTSIDE].eaddr, 16);
	(void)sendto(world.forge_fd[1], buf, 48 + len, 0,
		     (struct sockaddr *)&sa, sizeof(sa));
}

/* forge_error() - An ICMP error about what a flow has sent */
static inline void forge_error(void)
{
	const struct flow *flow = some_flow();

	if (!flow)
		return;
	if (inany_is_v4(&flow->f.side[TGTSIDE].eaddr))
		forge4(flow);
	else
		forge6(flow);
	/* what it was raised to read is no use to anybody */
	for (unsigned i = 0; i < 2; i++)
		while (recv(world.forge_fd[i], sink, sizeof(sink),
			    MSG_DONTWAIT) > 0)
			;
}

static inline void play_peers(void)
{
	play_connections();
	play_echo();
	if (one_in(8))
		connect_inbound();
	if (one_in(4))
		send_datagrams();
	if (one_in(8))
		forge_error();
}

static inline void close_peers(void)
{
	for (unsigned i = 0; i < PEERS; i++)
		close_peer(&world.peer[i]);
	for (unsigned i = 0; i < UDP_PEERS; i++)
		close_peer(&world.udp_peer[i]);
}

#endif /* PASSTPY_TESTS_PEERS_H */
