/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one door into epoll, and listening sockets behind it */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "table.h"
#include "table/epoll.h"
#include "table/listen.h"

static struct table t;
static struct epoll_set es;

static uint32_t edges(const struct flow *flow, unsigned sidei)
{
	(void)sidei;
	if (flow->f.events)
		return 0;
	return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
}

static uint32_t input(const struct flow *flow, unsigned sidei)
{
	(void)flow;
	(void)sidei;
	return EPOLLIN;
}

static uint32_t output_until_told(const struct flow *flow, unsigned sidei)
{
	(void)sidei;
	return flow->f.events ? EPOLLIN : EPOLLOUT;
}

static void setup_for(flow_interest_fn interest)
{
	table_setup(&t, 8);
	es.interest[FLOW_TCP] = interest;
	es.fd[EPOLL_MAIN] = epoll_create1(EPOLL_CLOEXEC);
	es.fd[EPOLL_GATED] = -1;
	CHECK(es.fd[EPOLL_MAIN] >= 0);
}

static void setup(void)
{
	setup_for(input);
}

static void teardown(void)
{
	close(es.fd[EPOLL_MAIN]);
	table_teardown(&t);
}

/* open_pair() - A flow with one end of a socket pair on its target side */
static struct flow *open_pair(int *ret_peer)
{
	struct flowside side = table_side(1);
	struct flow *flow = table_open(&t, &side, &side, 0);
	int fds[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
	flow_set_fd(&t.ft, flow, TGTSIDE, fds[0]);
	*ret_peer = fds[1];
	return flow;
}

/* events() - What epoll tells of the only socket in it */
static uint32_t events(union epoll_ref *ret_ref)
{
	struct epoll_event ev;

	if (epoll_wait(es.fd[EPOLL_MAIN], &ev, 1, 0) != 1)
		return 0;
	ret_ref->u64 = ev.data.u64;
	return ev.events;
}

static void test_edges_of_both_directions_are_told(void)
{
	union epoll_ref ref;
	struct flow *flow;
	int peer;

	setup_for(edges);
	flow = open_pair(&peer);
	CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
	CHECK(flow->f.interest[TGTSIDE] && !flow->f.interest[INISIDE]);
	CHECK_EQ(events(&ref), EPOLLOUT);
	CHECK_EQ(ref.type, EPOLL_FLOW);
	CHECK_EQ(ref.fd, flow->f.fd[TGTSIDE]);
	CHECK_EQ(ref.sidx.side, TGTSIDE);
	CHECK(flow_at(&t.ft, ref.sidx) == flow);
	CHECK_EQ(events(&ref), 0);
	CHECK_EQ(write(peer, "x", 1), 1);
	CHECK_EQ(events(&ref), EPOLLIN | EPOLLOUT);
	CHECK_EQ(events(&ref), 0);
	close(peer);
	CHECK(events(&ref) & EPOLLRDHUP);
	close(flow->f.fd[TGTSIDE]);
	teardown();
}

static void test_edges_are_told_again_until_nothing_is_wanted(void)
{
	struct log_record r;
	union epoll_ref ref;
	struct flow *flow;
	int peer;

	setup_for(edges);
	flow = open_pair(&peer);
	t.log.level = 2;
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
		CHECK_EQ(events(&ref), EPOLLOUT);
		CHECK_EQ(events(&ref), 0);
	}
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_EPOLL_SET);
	CHECK_EQ(r.arg[0], flow->f.fd[TGTSIDE]);
	CHECK_EQ(r.arg[2], TGTSIDE);

	flow_set_events(flow, 1);
	CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
	CHECK(!flow->f.interest[TGTSIDE]);
	CHECK_EQ(events(&ref), 0);
	close(peer);
	close(flow->f.fd[TGTSIDE]);
	teardown();
}

static void test_levels_are_told_as_long_as_they_last(void)
{
	union epoll_ref ref;
	struct flow *flow;
	int peer;

	setup();
	flow = open_pair(&peer);
	CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
	CHECK_EQ(events(&ref), 0);
	CHECK_EQ(write(peer, "x", 1), 1);
	CHECK_EQ(events(&ref), EPOLLIN);
	CHECK_EQ(events(&ref), EPOLLIN);
	CHECK_EQ(ref.type, EPOLL_FLOW);
	flow_epoll_del(&es, flow, TGTSIDE);
	flow_epoll_del(&es, flow, TGTSIDE);
	CHECK_EQ(events(&ref), 0);
	close(peer);
	close(flow->f.fd[TGTSIDE]);
	teardown();
}

static void test_what_is_wanted_may_change(void)
{
	union epoll_ref ref;
	struct flow *flow;
	int peer;

	setup_for(output_until_told);
	flow = open_pair(&peer);
	CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
	CHECK_EQ(events(&ref), EPOLLOUT);
	flow_set_events(flow, 1);
	CHECK_EQ(flow_epoll_set(&es, &t.ft, flow, TGTSIDE, 0), 0);
	CHECK_EQ(events(&ref), 0);
	CHECK_EQ(write(peer, "x", 1), 1);
	CHECK_EQ(events(&ref), EPOLLIN);
	close(peer);
	close(flow->f.fd[TGTSIDE]);
	teardown();
}

static void test_refusal_leaves_the_flow_outside(void)
{
	struct flowside side = table_side(1);
	struct flow *flow;
	int fd;

	setup();
	flow = table_open(&t, &side, &side, 0);
	fd = open("/dev/null", O_RDONLY); /* not pollable */
	CHECK_EQ(flow_adopt(&es, &t.ft, flow, TGTSIDE, fd, 0), -EPERM);
	CHECK(!flow->f.interest[TGTSIDE]);
	CHECK_EQ(flow->f.fd[TGTSIDE], -1);
	close(fd);
	teardown();
}

static int bound_socket(int type, uint32_t addr, uint16_t *ret_port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(addr) };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&sa, len));
	if (type == SOCK_STREAM)
		CHECK(!listen(fd, 5));
	CHECK(!getsockname(fd, (struct sockaddr *)&sa, &len));
	*ret_port = ntohs(sa.sin_port);
	return fd;
}

static void test_listener_knows_where_it_is_bound(void)
{
	struct listeners ls;
	struct listener *l;
	uint16_t port;
	int fd;

	setup();
	CHECK_EQ(listeners_init(&ls), 0);
	fd = bound_socket(SOCK_STREAM, 0x7f000001, &port);
	CHECK_EQ(listener_add(&ls, &es, fd, IPPROTO_TCP, PIF_HOST, 5), 0);
	l = listener_get(&ls, 5);
	CHECK_EQ(l->port, port);
	CHECK(inany_is_loopback(&l->addr));

	fd = bound_socket(SOCK_DGRAM, 0, &port);
	CHECK_EQ(listener_add(&ls, &es, fd, IPPROTO_UDP, PIF_HOST,
			      LISTEN_MAX - 1),
		 0);
	l = listener_get(&ls, LISTEN_MAX - 1);
	CHECK_EQ(l->port, port);
	CHECK(!l->addr.w[0] && !l->addr.w[1]);
	CHECK(!listener_get(&ls, 4));
	CHECK(!listener_get(&ls, LISTEN_MAX));
	listeners_free(&ls);
	CHECK(fcntl(fd, F_GETFD) < 0);
	teardown();
}

static void test_listener_is_told_and_removed(void)
{
	struct listeners ls;
	union epoll_ref ref;
	uint16_t port;
	int fd, other;

	setup();
	CHECK_EQ(listeners_init(&ls), 0);
	fd = bound_socket(SOCK_DGRAM, 0x7f000001, &port);
	CHECK_EQ(listener_add(&ls, &es, fd, IPPROTO_UDP, PIF_HOST, 9), 0);
	other = bound_socket(SOCK_DGRAM, 0x7f000001, &port);
	CHECK(listener_add(&ls, &es, other, IPPROTO_UDP, PIF_HOST, 9) ==
	      -EEXIST);
	CHECK(listener_add(&ls, &es, other, IPPROTO_UDP, PIF_HOST,
			   LISTEN_MAX) == -ERANGE);
	CHECK(listener_add(&ls, &es, es.fd[EPOLL_MAIN], IPPROTO_UDP, PIF_HOST,
			   10) == -ENOTSOCK);
	CHECK_EQ(events(&ref), 0);
	CHECK_EQ(sendto(other, "x", 1, 0,
			(struct sockaddr *)&(struct sockaddr_in){
				.sin_family = AF_INET,
				.sin_port = htons(listener_get(&ls, 9)->port),
				.sin_addr.s_addr = htonl(0x7f000001) },
			sizeof(struct sockaddr_in)),
		 1);
	wait_readable(es.fd[EPOLL_MAIN]);
	CHECK_EQ(events(&ref), EPOLLIN);
	CHECK_EQ(ref.type, EPOLL_LISTEN);
	CHECK_EQ(ref.data, 9);
	CHECK_EQ(listener_del(&ls, &es, 9), 0);
	CHECK(listener_del(&ls, &es, 9) == -ENOENT);
	CHECK_EQ(events(&ref), 0);
	close(other);
	listeners_free(&ls);
	teardown();
}

/* add_on() - A UDP listener on an address and port (0: any) of loopback */
static uint16_t add_on(struct listeners *ls, uint32_t number, uint32_t addr,
		       uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(addr) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
	CHECK_EQ(listener_add(ls, &es, fd, IPPROTO_UDP, PIF_HOST, number), 0);
	return listener_get(ls, number)->port;
}

/* numbers() - Numbers of the listeners on a port, as bits */
static unsigned numbers(const struct listeners *ls, uint16_t port)
{
	const struct listener *l;
	unsigned found = 0;

	for (l = listener_on_port(ls, IPPROTO_UDP, PIF_HOST, port); l;
	     l = listener_next(ls, l))
		found |= 1U << (l == &ls->slot[LISTEN_MAX - 1] ?
					31 :
					(unsigned)(l - ls->slot));
	return found;
}

/* Each flow of a guest asks: the slots between must not even be looked at */
static void test_listeners_of_a_port_are_found_without_a_walk(void)
{
	const size_t page = 4096;
	struct listeners ls;
	uint8_t *between;
	size_t bytes;
	uint16_t port, other;

	setup();
	CHECK_EQ(listeners_init(&ls), 0);
	port = add_on(&ls, 0, 0x7f000001, 0);
	add_on(&ls, 3, 0x7f000002, port);
	other = add_on(&ls, 5, 0x7f000003, 0);
	add_on(&ls, LISTEN_MAX - 1, 0x7f000003, port);
	between = (uint8_t *)ls.slot + page;
	bytes = (LISTEN_MAX * sizeof(struct listener) - 2 * page) & ~(page - 1);
	CHECK(!mprotect(between, bytes, PROT_NONE));

	CHECK_EQ(numbers(&ls, port), 1U | 1U << 3 | 1U << 31);
	CHECK_EQ(numbers(&ls, other), 1U << 5);
	CHECK(!listener_on_port(&ls, IPPROTO_TCP, PIF_HOST, port));
	CHECK(!listener_on_port(&ls, IPPROTO_UDP, PIF_SPLICE, port));
	CHECK_EQ(listener_del(&ls, &es, 3), 0);
	CHECK_EQ(numbers(&ls, port), 1U | 1U << 31);
	CHECK_EQ(listener_del(&ls, &es, LISTEN_MAX - 1), 0);
	CHECK_EQ(listener_del(&ls, &es, 0), 0);
	CHECK_EQ(numbers(&ls, port), 0);

	CHECK(!mprotect(between, bytes, PROT_READ | PROT_WRITE));
	listeners_free(&ls);
	teardown();
}

/* known() - The listener of a port that has a serial */
static struct listener *known(const struct listeners *ls, uint16_t port,
			      uint32_t serial)
{
	return listener_known(ls, IPPROTO_UDP, PIF_HOST, port, serial);
}

static void test_listener_is_known_whatever_its_number(void)
{
	struct listeners ls;
	uint32_t first, second;
	uint16_t port;

	setup();
	CHECK_EQ(listeners_init(&ls), 0);
	port = add_on(&ls, 0, 0x7f000001, 0);
	add_on(&ls, 3, 0x7f000002, port);
	first = listener_get(&ls, 0)->serial;
	second = listener_get(&ls, 3)->serial;
	CHECK(known(&ls, port, first) == listener_get(&ls, 0));
	CHECK(known(&ls, port, second) == listener_get(&ls, 3));
	CHECK(!known(&ls, port, 0));
	CHECK_EQ(listener_renumber(&ls, &es, 0, 7), 0);
	CHECK(known(&ls, port, first) == listener_get(&ls, 7));
	CHECK_EQ(listener_del(&ls, &es, 7), 0);
	add_on(&ls, 7, 0x7f000001, port);
	CHECK(!known(&ls, port, first));
	listeners_free(&ls);
	teardown();
}

int main(void)
{
	RUN(test_edges_of_both_directions_are_told);
	RUN(test_edges_are_told_again_until_nothing_is_wanted);
	RUN(test_levels_are_told_as_long_as_they_last);
	RUN(test_what_is_wanted_may_change);
	RUN(test_refusal_leaves_the_flow_outside);
	RUN(test_listener_knows_where_it_is_bound);
	RUN(test_listener_is_told_and_removed);
	RUN(test_listeners_of_a_port_are_found_without_a_walk);
	RUN(test_listener_is_known_whatever_its_number);
	return 0;
}
