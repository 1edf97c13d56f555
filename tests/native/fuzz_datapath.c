/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hostile frames: good ones, mutated, against a whole datapath with real peers
 *
 *   fuzz_datapath [ITERATIONS [SEED [tun|stream]]]
 *
 * An iteration is one frame. The fuzzer plays a guest that follows its TCP
 * connections, so that mutated segments meet them in every state, and peers
 * that read, write and close when they like, some of them over pairs of UNIX
 * sockets, and has connections exchange their sockets. It looks for sanitizer reports,
 * assertions and leaks, and has oracle.h look at each frame for the guest;
 * afterwards a good connection must work. All of it is done with a tap device,
 * which takes each frame at once, and with a stream, which takes it later.
 */

#include "base/macros.h"
#include "captures.h"
#include "guest.h"
#include "heard.h"
#include "mutate.h"

#define CONNS	     16 /* connections the guest follows */
#define PEERS	     32 /* accepted sockets kept */
#define UDP_PEERS    8	/* sockets that send datagrams to the guest */
#define FRAMES	     32 /* frames of one turn */
#define PAYLOAD	     3000
#define TURN_SECONDS 30 /* real time that no turn may take */
#define LISTENER     7	/* number of the listening socket */

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

/** struct fuzz - Guest, peers, and what they do next
 * @conn:	Connections
 * @peer:	Accepted or connected TCP sockets, or -1
 * @tcp_fd:	Where flows of the guest go
 * @udp_fd:	The same for datagrams; echoes
 * @udp_peer:	Sockets that send to the guest unasked, or -1
 * @inbound_port: Port on which the datapath listens for the guest
 * @udp_inbound_port: The same for datagrams
 */
struct fuzz {
	struct guest g;
	struct test_random rnd;
	struct conn conn[CONNS];
	int peer[PEERS];
	int tcp_fd;
	int udp_fd;
	uint16_t tcp_port;
	uint16_t udp_port;
	uint16_t inbound_port;
	uint16_t udp_inbound_port;
	int udp_peer[UDP_PEERS];
};

static struct fuzz f;
static uint8_t frame[GUEST_FRAME];
static uint8_t payload[PAYLOAD];
static unsigned exchanged;

static uint32_t below(uint32_t n)
{
	return test_below(&f.rnd, n);
}

static bool one_in(uint32_t n)
{
	return !below(n);
}

/* Frames */

static void conn_restart(struct conn *c)
{
	*c = (struct conn){
		.ends = { .v6 = one_in(3),
			  .host = (uint8_t)(1 + below(3)),
			  .sport = (uint16_t)(40000 + below(64)),
			  .dport = (uint16_t)(80 + below(2)) },
		.seq = (uint32_t)test_random64(&f.rnd),
	};
}

/* add_options() - Let a segment have options, sane or not; its new length */
static size_t add_options(size_t len, uint32_t ack)
{
	uint8_t options[40] = { TCP_OPT_MSS, 4, 5, 180, TCP_OPT_SACK_PERM,
				2,	     1, 3, 3,	(uint8_t)below(20) };
	size_t ip_len = (frame[12] == 0x08 ? 20 : 40), n = 12;
	uint8_t *tcp = frame + ETH_HLEN_ + ip_len;

	if (!(tcp[13] & TCP_FLAG_SYN)) {
		uint32_t start = htonl(ack + 1000), end = htonl(ack + 2000);

		options[0] = options[1] = TCP_OPT_NOP_;
		options[2] = TCP_OPT_SACK;
		options[3] = 10;
		memcpy(options + 4, &start, 4);
		memcpy(options + 8, &end, 4);
	}
	if (one_in(4)) {
		n = 4 * (1 + below(10));
		for (size_t i = 0; i < n; i++) {
			if (one_in(3))
				options[i] = (uint8_t)below(256);
		}
	}
	memmove(tcp + 20 + n, tcp + 20, len - (size_t)(tcp + 20 - frame));
	memcpy(tcp + 20, options, n);
	tcp[12] = (uint8_t)((20 + n) / 4 << 4);
	if (ip_len == 40) {
		struct ip6_hdr_ *ip = (struct ip6_hdr_ *)(frame + ETH_HLEN_);

		ip->payload_len = htons((uint16_t)(ntohs(ip->payload_len) + n));
	} else {
		struct ip4_hdr *ip = (struct ip4_hdr *)(frame + ETH_HLEN_);

		ip->tot_len = htons((uint16_t)(ntohs(ip->tot_len) + n));
		ip->check = 0;
		ip->check = (uint16_t)~csum_fold(csum_add(ip, sizeof(*ip), 0));
	}
	return len + n;
}

/* make_tcp() - What an honest guest would say next on a connection, roughly */
static size_t make_tcp(struct conn *c)
{
	uint32_t len = one_in(2) ? 0 : 1 + below(PAYLOAD);
	uint32_t seq = c->seq, ack = c->ack;
	uint8_t flags = TCP_FLAG_ACK;
	size_t frame_len;

	if (one_in(40))
		conn_restart(c);
	if (!c->ack || one_in(200)) {
		flags = TCP_FLAG_SYN;
		seq = c->seq - 1;
		len = 0;
	} else if (one_in(12)) {
		flags |= TCP_FLAG_FIN;
	} else if (one_in(40)) {
		flags = TCP_FLAG_RST | (one_in(2) ? TCP_FLAG_ACK : 0);
	}
	if (one_in(10))
		seq += below(20000) - 10000;
	if (one_in(10))
		ack += below(20000) - 10000;
	frame_len = guest_tcp(frame, &c->ends, flags, seq, ack, payload, len);
	if (seq == c->seq)
		c->seq += len + !!(flags & TCP_FLAG_FIN);
	if ((flags & TCP_FLAG_SYN) || one_in(5))
		frame_len = add_options(frame_len, ack);
	if (one_in(8)) {
		struct tcp_hdr *tcp =
			(struct tcp_hdr *)(frame + ETH_HLEN_ +
					   (c->ends.v6 ? 40 : 20));

		tcp->window = htons((uint16_t)(one_in(2) ? 0 : below(65536)));
	}
	return frame_len;
}

static size_t make_udp(void)
{
	struct guest_ends ends = { .v6 = one_in(3),
				   .host = (uint8_t)(1 + below(3)),
				   .sport = (uint16_t)(5000 + below(20)),
				   .dport = (uint16_t)(one_in(50) ? 67 : 53) };

	return guest_udp(frame, &ends, payload, below(PAYLOAD));
}

/* pseudo6() - The ICMPv6 pseudo header's sum, of the frame being made */
static uint64_t pseudo6(uint32_t len)
{
	const struct ip6_hdr_ *ip = (struct ip6_hdr_ *)(frame + ETH_HLEN_);
	uint32_t words[2] = { htonl((uint32_t)sizeof(struct icmp_hdr) + len),
			      htonl(IPPROTO_ICMPV6) };

	return csum_add(words, sizeof(words),
			csum_add(ip->saddr, 2 * sizeof(ip->saddr), 0));
}

static size_t make_icmp(void)
{
	struct guest_ends ends = { .v6 = one_in(2), .host = 1 };
	uint32_t len = below(200);
	struct icmp_hdr *icmp = (struct icmp_hdr *)guest_ip(
		frame, &ends, ends.v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
		(uint32_t)sizeof(*icmp) + len);

	*icmp = (struct icmp_hdr){ .type = ends.v6 ? 128 : 8,
				   .id = htons((uint16_t)below(5)),
				   .seq = htons((uint16_t)below(100)) };
	if (ends.v6 && one_in(10))
		icmp->type = (uint8_t)(133 + below(5));
	memcpy(icmp + 1, payload, len);
	icmp->check = (uint16_t)~csum_fold(csum_add(
		icmp, sizeof(*icmp) + len, ends.v6 ? pseudo6(len) : 0));
	return (size_t)((uint8_t *)(icmp + 1) - frame) + len;
}

static size_t make_arp(void)
{
	uint8_t *arp = guest_eth(frame, ETHERTYPE_ARP_);

	memset(arp, 0, 28);
	return ETH_HLEN_ + 28;
}

static void send_frame(void)
{
	struct vnet_hdr vh = guest_no_csum();
	uint32_t kind = below(20);
	size_t len;

	if (kind < 14)
		len = make_tcp(&f.conn[below(CONNS)]);
	else if (kind < 17)
		len = make_udp();
	else if (kind < 19)
		len = make_icmp();
	else
		len = make_arp();
	if (one_in(10))
		len = guest_fragment(
			frame, len, below(3), one_in(2),
			(uint16_t)(8 * below(one_in(2) ? 3 : 8192)));
	if (one_in(3)) {
		len = mutate(&f.rnd, frame, len, sizeof(frame));
		if (!one_in(4))
			guest_mend_ip(frame, len);
	}
	if (one_in(6))
		mutate_header(&f.rnd, &vh);
	if (f.g.stream) /* another length ends the connection: fuzz_stream.c */
		len = MIN(MAX(len, (size_t)ETH_HLEN_), 65535U);
	if (f.g.stream && !one_in(20))
		guest_mend(frame, len);
	(void)guest_send(&f.g, &vh, frame, len);
}

static void follow(const struct heard *h)
{
	struct conn *c;

	for (c = f.conn; c < f.conn + CONNS; c++) {
		if (c->ends.v6 != h->v6 || htons(c->ends.sport) != h->tcp.dest)
			continue;
		if (h->tcp.flags & TCP_FLAG_RST && one_in(2))
			conn_restart(c);
		else if (!one_in(4))
			c->ack = ntohl(h->tcp.seq) + h->len;
	}
	if (h->tcp.flags != TCP_FLAG_SYN)
		return;

	/* A SYN for the guest: let a connection become its answer */
	c = &f.conn[below(CONNS)];
	c->ends = (struct guest_ends){
		.v6 = h->v6,
		.host = 9,
		.sport = ntohs(h->tcp.dest),
		.dport = ntohs(h->tcp.source),
	};
	c->ack = ntohl(h->tcp.seq) + 1;
}

static bool hear_one(struct heard *h)
{
	return hear_tcp(&f.g, frame, sizeof(frame), h);
}

/* hear() - Read what the datapath sent; follow the connections */
static void hear(void)
{
	struct heard h;

	while (hear_one(&h))
		follow(&h);
}

/* Peers */

static void keep_peer(int fd)
{
	int *slot = &f.peer[below(PEERS)];

	if (fd < 0)
		return;
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

static void close_peer(int *fd)
{
	struct linger reset = { .l_onoff = 1 };

	if (*fd < 0)
		return;
	if (one_in(2))
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(*fd);
	*fd = -1;
}

static void connect_inbound(void)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6,
				   .sin6_port = htons(f.inbound_port),
				   .sin6_addr = in6addr_loopback };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);

	(void)connect(fd, (struct sockaddr *)&sa, sizeof(sa));
	keep_peer(fd);
}

/* send_datagrams() - Several at once to a port of the guest, from a peer that is
 * new now and then */
static void send_datagrams(void)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6,
				   .sin6_port = htons(f.udp_inbound_port),
				   .sin6_addr = in6addr_loopback };
	int *fd = &f.udp_peer[below(UDP_PEERS)];

	if (*fd >= 0 && one_in(10)) {
		close(*fd);
		*fd = -1;
	}
	if (*fd < 0)
		*fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	for (uint32_t n = 1 + below(8); n; n--)
		(void)sendto(*fd, payload, below(PAYLOAD), 0,
			     (struct sockaddr *)&sa, sizeof(sa));
}

static void play_peers(void)
{
	static uint8_t sink[65536];
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	ssize_t n;

	keep_peer(accept4(f.tcp_fd, NULL, NULL, SOCK_NONBLOCK));
	for (unsigned i = 0; i < 4; i++) {
		int *fd = &f.peer[below(PEERS)];

		if (*fd < 0)
			continue;
		if (one_in(2))
			(void)recv(*fd, sink, sizeof(sink), 0);
		if (one_in(2))
			(void)send(*fd, sink, below(sizeof(sink)),
				   MSG_NOSIGNAL);
		if (one_in(20))
			shutdown(*fd, SHUT_WR);
		if (one_in(20))
			close_peer(fd);
	}
	n = recvfrom(f.udp_fd, sink, sizeof(sink), 0, (struct sockaddr *)&sa,
		     &len);
	if (n >= 0 && one_in(2))
		(void)sendto(f.udp_fd, sink, (size_t)n, 0,
			     (struct sockaddr *)&sa, len);
	if (one_in(20))
		connect_inbound();
	if (one_in(4))
		send_datagrams();
}

/* The control plane, which is not always in its right mind */

static struct verdict decide(const struct miss *m)
{
	bool tcp = m->ipproto == IPPROTO_TCP;
	struct verdict v;

	if (m->pif == PIF_HOST) {
		v = (struct verdict){ .action = VERDICT_FORWARD,
				      .pif = PIF_TAP,
				      .proxy = (uint8_t)below(3),
				      .side = { .eport = 8080,
						.oport = m->key.eport } };
		inet_pton(AF_INET6, "2001:db8::5", &v.side.eaddr);
		inet_pton(AF_INET6, "2001:db8:1::9", &v.side.oaddr);
	} else {
		v = guest_forward(m, tcp ? f.tcp_port : f.udp_port);
	}
	if (one_in(20))
		v.side.eport = 1; /* refused */
	if (one_in(10))
		v.action = (uint8_t)below(VERDICT_NUM);
	if (one_in(50))
		v.pif = (uint8_t)below(PIF_NUM);
	return v;
}

/* join() - A pair of sockets: a peer's, and one for the datapath */
static int join(void)
{
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	keep_peer(ends[0]);
	return ends[1];
}

static void answer_misses(void)
{
	struct miss *m;

	while ((m = guest_next_miss(&f.g))) {
		int fd = one_in(m->pif == PIF_TAP ? 4 : 50) ? join() : -1;
		struct verdict v = decide(m);

		if ((one_in(20) || guest_answer_with(&f.g, m, &v, fd)) &&
		    fd >= 0)
			close(fd);
	}
}

/* exchange() - Another socket for some flow, often one that can have it */
static void exchange(void)
{
	const struct flow_table *ft = &f.g.dp->ctx.ft;
	const struct flow *flow;
	int fd;

	if (!ft->top)
		return;
	flow = &ft->flows[below(ft->top)];
	fd = one_in(20) ? socket(AF_INET, SOCK_STREAM, 0) : join();
	if (datapath_adopt(f.g.dp, flow_id(ft, flow), fd))
		close(fd);
	else
		exchanged++;
}

/* run_turn() - Virtual time never ends a slice: a socket that stays ready
 * without progress is a turn without end, which the alarm ends */
static void run_turn(void)
{
	alarm(TURN_SECONDS);
	CHECK_EQ(guest_turn(&f.g), 0);
	alarm(0);
}

static void turn(void)
{
	run_turn();
	answer_misses();
	if (one_in(20))
		guest_meddle(&f.g, &f.rnd);
	if (one_in(2))
		exchange();
	if (one_in(8))
		play_captures(f.g.dp, &f.rnd);
	hear();
	f.g.now += below(20) * NSEC_PER_MSEC;
	if (one_in(200))
		f.g.now += below(200) * NSEC_PER_SEC;
}

/* After all that, the datapath must still serve */

static void drain(void)
{
	for (unsigned i = 0; i < PEERS; i++)
		close_peer(&f.peer[i]);
	for (unsigned i = 0; i < UDP_PEERS; i++)
		close_peer(&f.udp_peer[i]);
	for (unsigned i = 0; i < 200; i++) {
		int fd = accept4(f.tcp_fd, NULL, NULL, SOCK_NONBLOCK);

		if (fd >= 0)
			close(fd);
		f.g.now += 3600 * NSEC_PER_SEC;
		run_turn();
		while (guest_next_miss(&f.g))
			;
		hear();
	}
	CHECK_EQ(f.g.dp->ctx.stage.pending, 0);
	CHECK_EQ(f.g.dp->ctx.ft.active, 0);
	flow_table_check(&f.g.dp->ctx.ft);
}

static void send_good(const struct conn *c, uint8_t flags, const char *text)
{
	struct vnet_hdr vh = guest_no_csum();
	size_t len = guest_tcp(frame, &c->ends, flags, c->seq, c->ack, text,
			       (uint32_t)strlen(text));

	if (f.g.stream)
		guest_mend(frame, len);
	CHECK(guest_send(&f.g, &vh, frame, len));
	CHECK_EQ(guest_turn(&f.g), 0);
}

static void serve_once(void)
{
	struct conn *c = &f.conn[0];
	struct verdict v;
	struct heard h;
	struct miss *m;
	char text[9];
	int fd;

	*c = (struct conn){ .ends = { .host = 1, .sport = 999, .dport = 80 } };
	send_good(c, TCP_FLAG_SYN, "");
	m = guest_next_miss(&f.g);
	CHECK(m);
	v = guest_forward(m, f.tcp_port);
	CHECK_EQ(guest_answer(&f.g, m, &v), 0);
	CHECK_EQ(guest_turn(&f.g), 0);
	CHECK(hear_one(&h));
	CHECK_EQ(h.tcp.flags, TCP_FLAG_SYN | TCP_FLAG_ACK);
	c->ack = ntohl(h.tcp.seq) + 1;
	fd = accept(f.tcp_fd, NULL, NULL);
	CHECK(fd >= 0);
	c->seq = 1;
	send_good(c, TCP_FLAG_ACK, "");
	send_good(c, TCP_FLAG_ACK | TCP_FLAG_PSH, "all well");
	CHECK_EQ(recv(fd, text, sizeof(text), 0), 8);
	CHECK_EQ(memcmp(text, "all well", 8), 0);
	close(fd);
}

static void setup(uint64_t seed, bool stream)
{
	int inbound;

	raise_limit();
	f.rnd.state = seed * 2 + 1;
	for (unsigned i = 0; i < PEERS; i++)
		f.peer[i] = -1;
	for (unsigned i = 0; i < UDP_PEERS; i++)
		f.udp_peer[i] = -1;
	for (unsigned i = 0; i < CONNS; i++)
		conn_restart(&f.conn[i]);
	for (unsigned i = 0; i < PAYLOAD; i++)
		payload[i] = (uint8_t)i;
	f.tcp_fd = listen_loopback(SOCK_STREAM, &f.tcp_port);
	f.udp_fd = listen_loopback(SOCK_DGRAM, &f.udp_port);
	inbound = listen_loopback(SOCK_STREAM, &f.inbound_port);
	memset(&f.g, 0, sizeof(f.g));
	if (stream)
		guest_setup_stream(&f.g);
	else
		guest_setup(&f.g);
	f.g.dp->ctx.log.level = 3;
	CHECK_EQ(listener_add(&f.g.dp->ctx.listeners, &f.g.dp->ctx.epoll,
			      inbound, IPPROTO_TCP, PIF_HOST, LISTENER),
		 0);
	inbound = listen_loopback(SOCK_DGRAM, &f.udp_inbound_port);
	CHECK_EQ(listener_add(&f.g.dp->ctx.listeners, &f.g.dp->ctx.epoll,
			      inbound, IPPROTO_UDP, PIF_HOST, LISTENER + 1),
		 0);
}

static void fuzz(unsigned long count, unsigned long seed, bool stream)
{
	unsigned fds = count_fds();

	setup(seed, stream);
	for (unsigned long i = 0; i < count; i += FRAMES) {
		for (unsigned k = 0; k < FRAMES; k++)
			send_frame();
		turn();
		play_peers();
	}
	drain();
	serve_once();
	CHECK(count < 20000 || guest_counter(&f.g, CNT_ICMP_ERRORS_TO_TAP));
	CHECK(count < 20000 || exchanged);
	guest_teardown(&f.g);
	close(f.tcp_fd);
	close(f.udp_fd);
	CHECK_EQ(count_fds(), fds);
}

int main(int argc, char *argv[])
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;

	for (int stream = 0; stream < 2; stream++)
		if (argc <= 3 || !strcmp(argv[3], stream ? "stream" : "tun"))
			fuzz(count / 2, seed, stream);
	return 0;
}
