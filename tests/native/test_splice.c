/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Spliced TCP where Python cannot reach: without any buffer left in the pool
 *
 * Client and server are sockets on loopback, and so is the datapath between
 * them; the reader stops and goes, so that the relay is blocked most of the
 * time. Whatever the pool has, bytes arrive as they were sent. So they do when the
 * client's is a UNIX socket.
 */

#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

#include "guest.h"
#include "proto/tcp.h"

#define BYTES	 (16 << 20)
#define PATIENCE (120 * NSEC_PER_SEC) /* real time until they have arrived */
#define LISTENER 3

/** struct world - A spliced connection
 * @g:		The datapath
 * @local:	The client is at a UNIX socket
 * @client:	Who opened
 * @server:	The other end
 * @sent:	Bytes that the client sent
 * @got:	Bytes that the server has
 */
struct world {
	struct guest g;
	bool local;
	int client;
	int server;
	uint32_t sent;
	uint32_t got;
};

static int tcp_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0);
	return fd;
}

static int tcp_listener(struct sockaddr_in *ret_sa)
{
	socklen_t len = sizeof(*ret_sa);
	int fd = tcp_socket();

	*ret_sa = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	CHECK_EQ(bind(fd, (struct sockaddr *)ret_sa, len), 0);
	CHECK_EQ(listen(fd, 8), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)ret_sa, &len), 0);
	return fd;
}

static void turn(struct world *w)
{
	struct turn_limits limits = { .now = ++w->g.now,
				      .slice = NSEC_PER_SEC };

	CHECK_EQ(datapath_turn(w->g.dp, &limits), 0);
}

/* connect_tcp() - A client that came by a port */
static void connect_tcp(struct world *w)
{
	struct ctx *c = &w->g.dp->ctx;
	struct sockaddr_in front;

	CHECK_EQ(listener_add(&c->listeners, &c->epoll, tcp_listener(&front),
			      IPPROTO_TCP, PIF_HOST, LISTENER),
		 0);
	w->client = tcp_socket();
	(void)connect(w->client, (struct sockaddr *)&front, sizeof(front));
}

/* connect_unix() - A client that came by a UNIX socket; the kernel names it */
static void connect_unix(struct world *w)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_un front = { .sun_family = AF_UNIX };
	const union inany name = { .a6 = IN6ADDR_LOOPBACK_INIT };
	struct ctx *c = &w->g.dp->ctx;
	socklen_t len = offsetof(struct sockaddr_un, sun_path);

	CHECK_EQ(bind(fd, (struct sockaddr *)&front, len), 0);
	CHECK_EQ(listen(fd, 8), 0);
	len = sizeof(front);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&front, &len), 0);
	CHECK_EQ(listener_add_nameless(&c->listeners, &c->epoll, fd, LISTENER,
				       &name, 80),
		 0);
	w->client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CHECK_EQ(connect(w->client, (struct sockaddr *)&front, len), 0);
}

static void world_setup(struct world *w, bool local)
{
	struct verdict v = { .action = VERDICT_SPLICE, .pif = PIF_SPLICE };
	struct sockaddr_in back;
	struct stage *stage;
	uint64_t flow_id;
	struct miss *m;
	int small = 64 * 1024, server;

	*w = (struct world){ .local = local };
	guest_setup(&w->g);
	server = tcp_listener(&back);
	CHECK_EQ(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &small,
			    sizeof(small)),
		 0);
	if (local)
		connect_unix(w);
	else
		connect_tcp(w);
	wait_readable(w->g.dp->ctx.epoll.fd[EPOLL_MAIN]);
	turn(w);
	stage = &w->g.dp->ctx.stage;
	m = stage_take_untold(stage);
	CHECK(m && m->pif == PIF_HOST && m->listener == LISTENER);

	inany_from_v4(&v.side.eaddr, back.sin_addr);
	v.side.eport = ntohs(back.sin_port);
	CHECK_EQ(datapath_open(w->g.dp, stage_miss_id(stage, m), &v,
			       tcp_socket(), NULL, &flow_id),
		 0);
	turn(w);
	wait_readable(server);
	w->server = accept4(server, NULL, NULL, SOCK_NONBLOCK);
	CHECK(w->server >= 0);
	close(server);
}

static void world_free(struct world *w)
{
	if (!w->local || w->sent < BYTES)
		close(w->client);
	close(w->server);
	guest_teardown(&w->g);
}

static uint8_t byte_at(uint32_t i)
{
	return (uint8_t)(i * 2654435761U >> 24);
}

static void send_some(struct world *w)
{
	static uint8_t buf[128 * 1024];
	uint32_t len = MIN((uint32_t)sizeof(buf), BYTES - w->sent);
	ssize_t n;

	for (uint32_t i = 0; i < len; i++)
		buf[i] = byte_at(w->sent + i);
	n = send(w->client, buf, len, MSG_NOSIGNAL);
	if (n > 0)
		w->sent += (uint32_t)n;
	if (n > 0 && w->sent == BYTES && w->local)
		CHECK_EQ(close(w->client), 0);
	else if (n > 0 && w->sent == BYTES)
		CHECK_EQ(shutdown(w->client, SHUT_WR), 0);
}

/* receive_some() - Return: false at the end */
static bool receive_some(struct world *w)
{
	static uint8_t buf[1 << 20];
	ssize_t n = recv(w->server, buf, sizeof(buf), 0);

	if (n < 0)
		CHECK_EQ(errno, EAGAIN);
	for (ssize_t i = 0; i < n; i++)
		CHECK_EQ(buf[i], byte_at(w->got++));
	return n != 0;
}

/* transfer() - Everything from client to server; the server is slow */
static void transfer(struct world *w)
{
	uint64_t end = clock_now() + PATIENCE;
	unsigned rounds = 0;

	do {
		if (w->sent < BYTES)
			send_some(w);
		turn(w);
		CHECK(rounds % 1024 || clock_now() < end);
	} while (rounds++ % 7 || receive_some(w));
	CHECK_EQ(w->got, BYTES);
}

static void blocked_bytes_wait_in_the_pool(bool local)
{
	struct world w;

	world_setup(&w, local);
	transfer(&w);
	CHECK(w.g.dp->ctx.cnt.n[CNT_SPLICE_BUFFERED] > 0);
	CHECK_EQ(tcp_chunks(&w.g.dp->ctx)->used, 0);
	world_free(&w);
}

static void test_blocked_bytes_wait_in_the_pool(void)
{
	blocked_bytes_wait_in_the_pool(false);
}

static void test_blocked_bytes_of_a_unix_socket_wait_too(void)
{
	blocked_bytes_wait_in_the_pool(true);
}

static void without_a_pool_nothing_is_lost(bool local)
{
	struct world w;

	world_setup(&w, local);
	tcp_chunks(&w.g.dp->ctx)->max = tcp_chunks(&w.g.dp->ctx)->used;
	transfer(&w);
	CHECK_EQ(w.g.dp->ctx.cnt.n[CNT_SPLICE_BUFFERED], 0);
	world_free(&w);
}

static void test_without_a_pool_nothing_is_lost(void)
{
	without_a_pool_nothing_is_lost(false);
}

static void test_without_a_pool_a_unix_socket_loses_nothing(void)
{
	without_a_pool_nothing_is_lost(true);
}

static void test_end_with_bytes_held_gives_them_back(void)
{
	struct world w;

	world_setup(&w, false);
	while (!tcp_chunks(&w.g.dp->ctx)->used) {
		send_some(&w);
		turn(&w);
	}
	world_free(&w);
}

int main(void)
{
	RUN(test_blocked_bytes_wait_in_the_pool);
	RUN(test_blocked_bytes_of_a_unix_socket_wait_too);
	RUN(test_without_a_pool_nothing_is_lost);
	RUN(test_without_a_pool_a_unix_socket_loses_nothing);
	RUN(test_end_with_bytes_held_gives_them_back);
	return 0;
}
