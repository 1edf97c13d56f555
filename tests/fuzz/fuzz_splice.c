/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections and datagrams from socket to socket, past the guest
 *
 * Clients on both sides open connections and send datagrams; they and the servers
 * read, write, stop, end and reset as they like, and the pool of waiting bytes
 * may be empty. What arrives must be what was sent, in order; where nobody has
 * cut a connection off, all of it must arrive.
 */

#include <netinet/tcp.h>

#include "control.h"
#include "peers.h"
#include "proto/tcp.h"

#define LINKS	 6
#define PUMPS	 4000 /* turns that bytes on their way may take to arrive */
#define DGRAM	 9000 /* bytes of a datagram at most */
#define SEND_MAX (1 << 18) /* bytes of one write at most */
#define PERIOD	 4093	   /* bytes after which what is sent repeats */
#define CLIENT	 0	   /* ends of a connection */
#define SERVER	 1

/** struct link - A spliced connection
 * @fd:		Socket of each end, or -1
 * @sent:	Bytes that this end has sent
 * @got:	Bytes of the other end that arrived here
 * @ended:	This end has said that it sends no more
 * @fair:	Nobody has cut it off: all bytes must arrive
 */
struct link {
	int fd[2];
	uint32_t sent[2];
	uint32_t got[2];
	bool ended[2];
	bool fair;
};

static struct link links[LINKS];
static uint8_t bytes[SEND_MAX];

/* stream_at() - What an end sends from byte @i on: periodic, SEND_MAX of it */
static const uint8_t *stream_at(unsigned end, uint32_t i)
{
	static uint8_t pattern[2 * PERIOD + SEND_MAX];

	if (!pattern[1])
		for (uint32_t k = 0; k < sizeof(pattern); k++)
			pattern[k] = (uint8_t)(k % PERIOD * 2654435761U >> 24);
	return pattern + i % PERIOD + end * (PERIOD / 2);
}

/* Connections */

static void cut_off(struct link *l)
{
	for (unsigned i = 0; i < 2; i++)
		close_peer(&l->fd[i]);
	*l = (struct link){ .fd = { -1, -1 } };
}

static void turn(void)
{
	CHECK_EQ(guest_turn(&world.g), 0);
	world.g.now += NSEC_PER_MSEC;
}

/* make_small() - Let a socket be full soon; set before it connects or listens.
 * With segments far smaller than the window, whose update waits for no timer */
static void make_small(int fd)
{
	int size = 16384, mss = 1000;

	CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss)), 0);
	CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
	CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
}

/* take_misses() - Answer what is asked; mostly by a splice to the server */
static void take_misses(void)
{
	struct miss *m;

	while ((m = guest_next_miss(&world.g))) {
		uint16_t port = m->ipproto == IPPROTO_TCP ? world.tcp_port :
							    world.udp_port;
		struct verdict v = guest_forward(m, port);

		v.action = VERDICT_SPLICE;
		v.pif = m->pif == PIF_HOST ? PIF_SPLICE : PIF_HOST;
		if (one_in(16))
			v = decide(m);
		if (!m->again && one_in(8))
			v.side.eport =
				1; /* nobody there: the next one counts */
		answer(m, v);
	}
}

/* accept_from() - The connection whose client has sent this number, or -1 */
static int accept_from(uint32_t number)
{
	uint32_t got = 0;

	for (unsigned i = 0; i < 8; i++) {
		int fd;

		turn();
		take_misses();
		fd = accept4(world.tcp_fd, NULL, NULL, SOCK_NONBLOCK);
		for (unsigned k = 0; k < 4 && fd >= 0; k++) {
			turn();
			if (recv(fd, &got, sizeof(got), 0) == sizeof(got))
				break;
		}
		if (fd >= 0 && got == number)
			return fd;
		if (fd >= 0) /* of one that was given up */
			close(fd);
	}
	return -1;
}

static void open_link(struct link *l)
{
	struct sockaddr_in6 sa =
		loopback(world.tcp_in[below(IN_NUM)], one_in(2));
	static uint32_t number;

	cut_off(l);
	l->fair = true;
	l->fd[CLIENT] = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (one_in(2))
		make_small(l->fd[CLIENT]);
	(void)connect(l->fd[CLIENT], (struct sockaddr *)&sa, sizeof(sa));
	number++;
	(void)send(l->fd[CLIENT], &number, sizeof(number), MSG_NOSIGNAL);
	l->fd[SERVER] = accept_from(number);
	if (l->fd[SERVER] < 0)
		cut_off(l);
}

static void link_send(struct link *l, unsigned end, uint32_t len)
{
	ssize_t n;

	if (l->ended[end])
		return;
	n = send(l->fd[end], stream_at(end, l->sent[end]), len, MSG_NOSIGNAL);
	if (n > 0)
		l->sent[end] += (uint32_t)n;
	else if (n < 0)
		CHECK(!l->fair || errno == EAGAIN);
}

/* link_recv() - false: nothing came */
static bool link_recv(struct link *l, unsigned end, uint32_t size)
{
	ssize_t n = recv(l->fd[end], bytes, size, 0);

	if (n < 0)
		CHECK(!l->fair || errno == EAGAIN);
	if (n > 0) {
		CHECK(!memcmp(bytes, stream_at(!end, l->got[end]), (size_t)n));
		l->got[end] += (uint32_t)n;
	}
	CHECK(l->got[end] <= l->sent[!end]);
	if (!n && size && l->fair) {
		CHECK(l->ended[!end]);
		CHECK_EQ(l->got[end], l->sent[!end]);
	}
	return n > 0;
}

/* close_end() - Which may cut off what is on its way */
static void close_end(struct link *l, unsigned end)
{
	l->fair = false;
	l->ended[end] = true;
	close_peer(&l->fd[end]);
}

static void play_link(struct link *l)
{
	unsigned end = below(2);

	if (l->fd[CLIENT] < 0 && l->fd[SERVER] < 0) {
		open_link(l);
		return;
	}
	if (l->fd[end] < 0)
		return;
	switch (below(8)) {
	case 0:
	case 1:
		link_send(l, end, 1 + below(2000));
		break;
	case 2:
		link_send(l, end, one_in(4) ? SEND_MAX : 40000);
		break;
	case 3:
		(void)link_recv(l, end, 1 + below(sizeof(bytes)));
		break;
	case 4:
		while (link_recv(l, end, sizeof(bytes)))
			turn();
		break;
	case 5:
		if (one_in(4) && !l->ended[end] &&
		    !shutdown(l->fd[end], SHUT_WR))
			l->ended[end] = true;
		break;
	case 6:
		if (one_in(8))
			close_end(l, end);
		break;
	default:
		if (one_in(16))
			cut_off(l);
	}
}

/* is_done() - Did all bytes of a connection arrive that must? */
static bool is_done(const struct link *l)
{
	return !l->fair || (l->got[CLIENT] == l->sent[SERVER] &&
			    l->got[SERVER] == l->sent[CLIENT]);
}

static void finish_links(void)
{
	for (struct link *l = links; l < links + LINKS; l++) {
		for (unsigned n = 0; n < PUMPS && !is_done(l); n++) {
			if (n > PUMPS / 2) /* for timers of the kernel */
				usleep(1000);
			turn();
			for (unsigned end = 0; end < 2; end++)
				while (link_recv(l, end, sizeof(bytes)))
					turn();
		}
		CHECK(is_done(l));
		cut_off(l);
	}
}

/* Datagrams: the first bytes say what follows */

static uint32_t fill_datagram(uint32_t seed)
{
	uint32_t len = 4 + seed % (DGRAM - 4);

	memcpy(bytes, &seed, 4);
	memcpy(bytes + 4, stream_at(CLIENT, seed), len - 4);
	return len;
}

static void check_datagram(size_t n)
{
	uint32_t seed;

	CHECK(n >= 4);
	memcpy(&seed, bytes, 4);
	CHECK_EQ(n, 4 + seed % (DGRAM - 4));
	CHECK(!memcmp(bytes + 4, stream_at(CLIENT, seed), n - 4));
}

/* serve_datagrams() - The server looks at each, and mostly answers */
static void serve_datagrams(void)
{
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	ssize_t n;

	while ((n = recvfrom(world.udp_fd, bytes, sizeof(bytes), 0,
			     (struct sockaddr *)&sa, &len)) >= 0) {
		check_datagram((size_t)n);
		if (one_in(3))
			continue;
		n = fill_datagram(below(65536));
		(void)sendto(world.udp_fd, bytes, (size_t)n, 0,
			     (struct sockaddr *)&sa, len);
	}
}

static void play_datagrams(void)
{
	struct sockaddr_in6 sa =
		loopback(world.udp_in[below(IN_NUM)], one_in(2));
	int *fd = &world.udp_peer[below(UDP_PEERS)];
	ssize_t n;

	if (*fd >= 0 && one_in(10)) {
		close(*fd);
		*fd = -1;
	}
	if (*fd < 0)
		*fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	for (uint32_t k = below(6); k; k--)
		(void)sendto(*fd, bytes, fill_datagram(below(65536)), 0,
			     (struct sockaddr *)&sa, sizeof(sa));
	if (one_in(2))
		serve_datagrams();
	while ((n = recv(*fd, bytes, sizeof(bytes), 0)) >= 0)
		check_datagram((size_t)n);
}

/* The target */

static void begin(void)
{
	world_begin("tun");
	if (one_in(2))
		make_small(world.tcp_fd);
	for (struct link *l = links; l < links + LINKS; l++)
		*l = (struct link){ .fd = { -1, -1 } };
	if (one_in(3)) /* nothing can wait but in sockets */
		tcp_chunks(ctx_of())->max = 0;
}

static void step(void)
{
	switch (below(8)) {
	case 0:
	case 1:
		play_datagrams();
		break;
	case 2:
		turn();
		take_misses();
		break;
	case 3:
		if (one_in(64))
			world.g.now += below(400) * NSEC_PER_SEC;
		else if (one_in(16))
			forge_error();
		turn();
		break;
	default:
		play_link(&links[below(LINKS)]);
		turn();
	}
}

static void end(void)
{
	finish_links();
	close_peers();
	for (unsigned i = 0; i < 20; i++) {
		turn();
		while (guest_next_miss(&world.g))
			;
		world.g.now += 3600 * NSEC_PER_SEC;
	}
	CHECK_EQ(ctx_of()->ft.active, 0);
	CHECK_EQ(tcp_chunks(ctx_of())->used, 0);
	world_end();
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
