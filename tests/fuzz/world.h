/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world.h - A datapath with all that is around it, for fuzzing
 *
 * The guest follows its TCP connections, so that spoiled segments meet them in
 * every state. Peers are sockets on loopback; the namespace is a second set of
 * listening sockets there.
 */
#ifndef PASSTPY_TESTS_WORLD_H
#define PASSTPY_TESTS_WORLD_H

#include "drive.h"
#include "guest.h"
#include "link/tap_faults.h"

#define CONNS	  16 /* connections the guest follows */
#define SEEN	  8  /* datagrams that it may answer */
#define PEERS	  32 /* accepted sockets kept */
#define UDP_PEERS 8  /* sockets that send datagrams to the guest */
#define PAYLOAD	  3000
#define LISTENER  7 /* number of the first listening socket */

enum { IN_HOST, IN_NAMESPACE, IN_NUM }; /* where a listening socket is */

/** struct conn - What the guest knows of a connection
 * @ends:	Addresses and ports
 * @seq:	Next it would send
 * @ack:	Next it expects; 0: nothing heard yet
 */
struct conn {
	struct guest_ends ends;
	uint32_t seq;
	uint32_t ack;
};

/** struct world - Guest, peers, and what they do next
 * @conn:	Connections
 * @seen:	Datagrams that the guest got, turned round
 * @peer:	Accepted or connected TCP sockets, or -1
 * @tcp_fd:	Where flows of the guest go
 * @udp_fd:	The same for datagrams; echoes
 * @relay_fd:	Those that a proxy passes on, where it is asked to
 * @udp_peer:	Sockets that send to the guest unasked, or -1
 * @forge_fd:	Raw sockets for ICMP and ICMPv6, or -1
 * @tcp_in:	Ports on which the datapath listens
 * @udp_in:	The same for datagrams
 * @exchanged:	Sockets that flows have exchanged
 * @renumbered:	The first listening socket has another number for now
 */
static struct world {
	struct guest g;
	struct conn conn[CONNS];
	struct guest_ends seen[SEEN];
	int peer[PEERS];
	int tcp_fd;
	int udp_fd;
	int relay_fd;
	uint16_t tcp_port;
	uint16_t udp_port;
	uint16_t relay_port;
	int udp_peer[UDP_PEERS];
	int forge_fd[2];
	uint16_t tcp_in[IN_NUM];
	uint16_t udp_in[IN_NUM];
	unsigned exchanged;
	bool renumbered;
} world;

static struct guest_rings rings;
static uint8_t payload[PAYLOAD];

static inline struct ctx *ctx_of(void)
{
	return &world.g.dp->ctx;
}

/* is_machine() - The guest may come and go; no header of it says that a checksum
 * is right */
static inline bool is_machine(void)
{
	return world.g.stream || world.g.rings;
}

static inline void conn_restart(struct conn *c)
{
	uint32_t choice = below(256); /* one: worlds are short */

	*c = (struct conn){
		.ends = { .v6 = choice % 3 == 0,
			  .host = (uint8_t)(1 + choice % 4),
			  .sport = (uint16_t)(40000 + choice % 64),
			  .dport = (uint16_t)(80 + choice % 2) },
		.seq = choice % 5 ? choice << 16 : 0U - choice,
	};
}

static inline uint64_t any_features(void)
{
	return VHOST_FEATURES & (one_in(2) ? test_random64(&rnd) : UINT64_MAX);
}

/* Making one */

static inline void add_listener(int type, uint8_t proto, unsigned where,
				uint32_t number, uint16_t *ret_port)
{
	int fd = listen_loopback(type, ret_port), on = 1;

	/* or it would not know which address it was sent to */
	if (type == SOCK_DGRAM) {
		CHECK_EQ(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on,
				    sizeof(on)),
			 0);
		CHECK_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on,
				    sizeof(on)),
			 0);
	}
	CHECK_EQ(listener_add(&ctx_of()->listeners, &ctx_of()->epoll, fd, proto,
			      where == IN_HOST ? PIF_HOST : PIF_SPLICE, number),
		 0);
}

static inline void world_sockets(void)
{
	for (unsigned i = 0; i < PEERS; i++)
		world.peer[i] = -1;
	for (unsigned i = 0; i < UDP_PEERS; i++)
		world.udp_peer[i] = -1;
	for (unsigned i = 0; i < PAYLOAD; i++)
		payload[i] = (uint8_t)i;
	world.tcp_fd = listen_loopback(SOCK_STREAM, &world.tcp_port);
	world.udp_fd = listen_loopback(SOCK_DGRAM, &world.udp_port);
	world.relay_fd = listen_loopback(SOCK_DGRAM, &world.relay_port);
	world.forge_fd[0] = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	world.forge_fd[1] = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
}

static inline void world_options(void)
{
	struct ctx *c = ctx_of();

	c->log.level = 3;
	c->udp_strict = one_in(2);
	world.g.dp->lift_groups = one_in(2);
	if (one_in(2)) {
		inany_from_v4(&c->our_addr[0],
			      (struct in_addr){ htonl(0xc0000201) });
		inet_pton(AF_INET6, "2001:db8::1", &c->our_addr[1]);
	}
	if (one_in(8))
		tap_faults_set(&c->tap, 50000, 50000, below(256));
}

/* world_begin() - @backend: "tun", "stream" or "vhost" */
static inline void world_begin(const char *backend)
{
	world = (struct world){ 0 };
	world_sockets();
	for (unsigned i = 0; i < CONNS; i++)
		world.conn[i].ends =
			(struct guest_ends){ .v6 = i % 2,
					     .host = 1,
					     .sport = (uint16_t)(40000 + i),
					     .dport = 80 };
	if (!strcmp(backend, "stream")) {
		guest_setup_stream(&world.g);
	} else if (!strcmp(backend, "vhost")) {
		rings_setup(&rings);
		guest_setup_rings(&world.g, &rings, any_features());
	} else {
		guest_setup(&world.g);
	}
	for (unsigned i = 0; i < IN_NUM; i++) {
		add_listener(SOCK_STREAM, IPPROTO_TCP, i, LISTENER + 2 * i,
			     &world.tcp_in[i]);
		add_listener(SOCK_DGRAM, IPPROTO_UDP, i, LISTENER + 2 * i + 1,
			     &world.udp_in[i]);
	}
	world_options();
}

static inline void world_end(void)
{
	guest_teardown(&world.g);
	if (world.g.rings)
		rings_teardown(&rings);
	close(world.tcp_fd);
	close(world.udp_fd);
	close(world.relay_fd);
	for (unsigned i = 0; i < 2; i++)
		if (world.forge_fd[i] >= 0)
			close(world.forge_fd[i]);
}

#endif /* PASSTPY_TESTS_WORLD_H */
