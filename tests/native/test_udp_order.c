/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Datagrams that come while their flow is being opened: intact, and in order
 *
 * bind() and connect() of the flow's socket are caught, to send in that very
 * moment: what comes before bind() lies in the listener's queue, what comes
 * before connect() in that of the flow's socket.
 */

#include <sys/epoll.h>
#include <sys/syscall.h>

#include "guest.h"

#define LISTENER 3
#define SERVICE	 53
#define SIZE	 200 /* bytes of a datagram */

/** struct world - A peer, and a machine on a stream socket that it sends to
 * @g:		The machine
 * @peer:	The peer's socket
 * @stranger:	Another one's
 * @ear:	Tells of each datagram that comes to one of our sockets
 * @armed:	bind() and connect() are to be caught
 */
static struct world {
	struct guest g;
	int peer;
	int stranger;
	int ear;
	bool armed;
} w;

/* hear_at() - Have what comes to this socket told as well, from now on */
static void hear_at(int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	CHECK_EQ(epoll_ctl(w.ear, EPOLL_CTL_ADD, fd, &ev), 0);
	(void)epoll_wait(w.ear, &ev, 1, 0); /* what is there already */
}

/* say() - A datagram full of one letter, which has arrived on return */
static void say(int from, char letter)
{
	struct epoll_event ev;
	char text[SIZE];

	memset(text, letter, sizeof(text));
	CHECK_EQ(send(from, text, sizeof(text), 0), sizeof(text));
	wait_readable(w.ear);
	CHECK_EQ(epoll_wait(w.ear, &ev, 1, 0), 1);
}

int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (w.armed) {
		say(w.peer, 'c');
		say(w.stranger, 'x');
		say(w.peer, 'd');
	}
	return (int)syscall(SYS_bind, fd, sa, len);
}

int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (w.armed) {
		hear_at(fd);
		say(w.peer, 'e');
		say(w.stranger, 'y');
		say(w.peer, 'f');
		w.armed = false;
	}
	return (int)syscall(SYS_connect, fd, sa, len);
}

static int udp_to(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (const struct sockaddr *)to, sizeof(*to)), 0);
	return fd;
}

static void world_setup(void)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct datapath_config config;
	socklen_t len = sizeof(sa);
	int fd[2], listener;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	config = guest_config(fd[1]);
	config.backend = tap_backend("stream");
	config.vnet = false;
	config.offloads = 0;
	w.g.fd = fd[0];
	w.g.now = GUEST_START;
	CHECK_EQ(datapath_create(&w.g.dp, &config), 0);

	listener = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	CHECK_EQ(bind(listener, (struct sockaddr *)&sa, len), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	CHECK_EQ(listener_add(&w.g.dp->ctx.listeners, &w.g.dp->ctx.epoll,
			      listener, IPPROTO_UDP, PIF_HOST, LISTENER),
		 0);
	w.ear = epoll_create1(EPOLL_CLOEXEC);
	CHECK(w.ear >= 0);
	hear_at(listener);
	w.peer = udp_to(&sa);
	w.stranger = udp_to(&sa);
}

static void world_free(void)
{
	close(w.peer);
	close(w.stranger);
	close(w.ear);
	guest_teardown(&w.g);
}

/* open_next() - Answer the next miss: to the guest's server */
static void open_next(void)
{
	struct miss *m = stage_take_untold(&w.g.dp->ctx.stage);
	struct verdict v = { .action = VERDICT_FORWARD, .pif = PIF_TAP };
	uint64_t flow_id;

	CHECK(m);
	inany_from_v4(&v.side.eaddr, (struct in_addr){ htonl(0xc0000205) });
	inany_from_v4(&v.side.oaddr, (struct in_addr){ htonl(0xc6336401) });
	v.side.eport = SERVICE;
	v.side.oport = m->key.eport;
	CHECK_EQ(datapath_open(w.g.dp, stage_miss_id(&w.g.dp->ctx.stage, m), &v,
			       -1, NULL, &flow_id),
		 0);
}

/* read_all() - Letters of the datagrams that the guest got, each checked */
static void read_all(char *letters, size_t size)
{
	static uint8_t buf[256 * 1024];
	size_t used = 0, n = 0;
	ssize_t got;

	while ((got = read(w.g.fd, buf + used, sizeof(buf) - used)) > 0)
		used += (size_t)got;
	for (size_t off = 0; off < used;) {
		const uint8_t *text = buf + off + 4 + ETH_HLEN_ + 20 + 8;
		uint32_t len;

		memcpy(&len, buf + off, sizeof(len));
		CHECK_EQ(ntohl(len), ETH_HLEN_ + 20 + 8 + SIZE);
		for (unsigned i = 1; i < SIZE; i++)
			CHECK_EQ(text[i], text[0]);
		CHECK(n < size - 1);
		letters[n++] = (char)text[0];
		off += 4 + ntohl(len);
	}
	letters[n] = 0;
}

static void test_datagrams_during_the_opening_are_intact_and_in_order(void)
{
	char letters[32];

	world_setup();
	say(w.peer, 'a');
	say(w.peer, 'b');
	guest_turn(&w.g);
	w.armed = true;
	open_next();
	CHECK(!w.armed);
	say(w.peer, 'g');
	guest_turn(&w.g);
	read_all(letters, sizeof(letters));
	CHECK(!strcmp(letters, "abcdefg"));

	/* What came for others goes its way, as from the listener */
	open_next();
	guest_turn(&w.g);
	read_all(letters, sizeof(letters));
	CHECK(!strcmp(letters, "xy"));
	world_free();
}

int main(void)
{
	RUN(test_datagrams_during_the_opening_are_intact_and_in_order);
	return 0;
}
