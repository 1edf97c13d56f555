/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The datapath: creation, the turn loop's bounds, time, spin, misses */

#include <poll.h>
#include <sys/resource.h>

#include "base/macros.h"
#include "core/dispatch.h"
#include "guest.h"

static struct guest g;
static uint8_t frame[GUEST_FRAME];

static const struct guest_ends web = { .host = 1, .sport = 40000, .dport = 80 };

static void send_syn(uint16_t sport)
{
	const struct vnet_hdr vh = guest_no_csum();
	struct guest_ends ends = web;
	size_t len;

	ends.sport = sport;
	len = guest_tcp(frame, &ends, TCP_FLAG_SYN, 1000, 0, NULL, 0);
	CHECK(guest_send(&g, &vh, frame, len));
}

static void send_udp(uint16_t sport, const char *text)
{
	const struct vnet_hdr vh = guest_no_csum();
	struct guest_ends ends = web;
	size_t len;

	ends.sport = sport;
	len = guest_udp(frame, &ends, text, (uint32_t)strlen(text));
	CHECK(guest_send(&g, &vh, frame, len));
}

static void failed_creation_leaves_the_tap(void)
{
	struct datapath_config config;
	struct rlimit limit, low;
	struct datapath *dp;
	int fd[2], lowest;
	unsigned fds;

	guest_socketpair(fd);
	fds = count_fds();
	lowest = dup(0);
	close(lowest);
	config = guest_config(fd[1]);
	config.max_flows = 0;
	CHECK_EQ(datapath_create(&dp, &config), -EINVAL);
	CHECK_EQ(count_fds(), fds);

	/* Not even room for epoll; then for that, but not for the timer */
	config = guest_config(fd[1]);
	config.virtual_time = false;
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int room = 0; room < 2; room++) {
		low = limit;
		low.rlim_cur = (rlim_t)(lowest + room);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
		CHECK_EQ(datapath_create(&dp, &config), -EMFILE);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
		CHECK_EQ(count_fds(), fds);
	}

	config.tap_fd = 1000;
	CHECK_EQ(datapath_create(&dp, &config), -EBADF);
	CHECK_EQ(count_fds(), fds);
	close(fd[0]);
	close(fd[1]);
}

static void miss_ends_the_turn_and_is_told_once(void)
{
	struct miss *m;

	guest_setup(&g);
	send_syn(1);
	CHECK_EQ(guest_turn(&g), 0);
	m = guest_next_miss(&g);
	CHECK(m);
	CHECK_EQ(m->ipproto, IPPROTO_TCP);
	CHECK_EQ(m->key.eport, 1);
	CHECK(!guest_next_miss(&g));
	CHECK_EQ(guest_turn(&g), 0);
	CHECK(!guest_next_miss(&g));
	guest_teardown(&g);
}

static void verdict_opens_and_replays(void)
{
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);
	struct verdict v;
	struct miss *m;
	char text[8];

	guest_setup(&g);
	send_udp(1, "one");
	send_udp(1, "two");
	guest_turn(&g);
	m = guest_next_miss(&g);
	v = guest_forward(m, port);
	CHECK_EQ(guest_answer(&g, m, &v), 0);
	wait_readable(peer);
	CHECK_EQ(read(peer, text, sizeof(text)), 3);
	CHECK_EQ(memcmp(text, "one", 3), 0);
	wait_readable(peer);
	CHECK_EQ(read(peer, text, sizeof(text)), 3);
	CHECK_EQ(memcmp(text, "two", 3), 0);
	CHECK_EQ(g.dp->ctx.ft.active, 1);
	CHECK_EQ(g.dp->ctx.stage.pending, 0);
	guest_teardown(&g);
	close(peer);
}

static void rate_limit_refills_with_time(void)
{
	static const uint64_t price = NSEC_PER_SEC / NEW_FLOW_RATE;
	struct verdict drop = { .action = VERDICT_DROP };
	unsigned told = 0;

	guest_setup(&g);
	for (uint16_t port = 1; port <= NEW_FLOW_BURST + 50; port++) {
		struct miss *m;

		send_syn(port);
		guest_turn(&g);
		while ((m = guest_next_miss(&g))) {
			guest_answer(&g, m, &drop);
			told++;
		}
	}
	CHECK_EQ(told, NEW_FLOW_BURST);
	CHECK_EQ(guest_counter(&g, CNT_DROP_RATE), 50);
	g.now += price * 3;
	for (uint16_t port = 1; port <= 5; port++)
		send_syn(port);
	guest_turn(&g);
	CHECK_EQ(g.dp->ctx.stage.pending, 3);
	guest_teardown(&g);
}

static void gone_tap_is_reported_and_not_polled(void)
{
	struct epoll_set *es;
	struct pollfd p;

	guest_setup(&g);
	close(g.fd);
	CHECK(guest_turn(&g) < 0);
	CHECK(guest_turn(&g) < 0);
	es = &g.dp->ctx.epoll;
	p = (struct pollfd){ .fd = es->fd[0], .events = POLLIN };
	CHECK_EQ(poll(&p, 1, 0), 0);
	guest_teardown(&g);
}

/* setup_real() - A datapath on the real clock */
static void setup_real(void)
{
	struct datapath_config config;
	int fd[2];

	guest_socketpair(fd);
	config = guest_config(fd[1]);
	config.virtual_time = false;
	g.fd = fd[0];
	CHECK_EQ(datapath_create(&g.dp, &config), 0);
}

static void idle_datapath_never_spins(void)
{
	struct turn_limits limits = { .slice = NSEC_PER_MSEC,
				      .spin = 60 * NSEC_PER_USEC };

	setup_real();
	for (int i = 0; i < 100; i++)
		CHECK_EQ(datapath_turn(g.dp, &limits), 0);
	CHECK_EQ(guest_counter(&g, CNT_SPINS_MISS), 0);
	CHECK_EQ(guest_counter(&g, CNT_SPINS_HIT), 0);
	guest_teardown(&g);
}

/* On a busy machine the core is taken from us, and spinning pauses: go on until
 * it was tried at least once */
static void vain_spins_are_given_up(void)
{
	struct turn_limits limits = { .slice = NSEC_PER_MSEC,
				      .spin = 200 * NSEC_PER_USEC };
	unsigned turns = 0;

	setup_real();
	while (turns < 200 ||
	       (turns < 20000 && !guest_counter(&g, CNT_SPINS_MISS))) {
		struct vnet_hdr vh = { 0 };

		/* An event that leads to nothing: dropped, no flow */
		CHECK(guest_send(&g, &vh, frame, 60));
		CHECK_EQ(datapath_turn(g.dp, &limits), 0);
		turns++;
	}
	CHECK(guest_counter(&g, CNT_SPINS_MISS) > 0);
	CHECK(guest_counter(&g, CNT_SPINS_MISS) <= turns / 4 + 1);
	guest_teardown(&g);
}

static void pending_miss_arms_the_timer(void)
{
	struct turn_limits limits = { .slice = NSEC_PER_MSEC };
	struct pollfd p;

	setup_real();
	p = (struct pollfd){ .fd = g.dp->ctx.epoll.fd[0], .events = POLLIN };
	send_syn(1);
	CHECK_EQ(datapath_turn(g.dp, &limits), 0);
	CHECK(guest_next_miss(&g));
	CHECK_EQ(datapath_turn(g.dp, &limits), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK(g.dp->ctx.timers.armed > g.dp->ctx.now);
	CHECK(g.dp->ctx.timers.armed <= g.dp->ctx.now + STAGE_DEADLINE);
	guest_teardown(&g);
}

static void closed_flow_is_freed_though_nothing_happens(void)
{
	struct turn_limits limits = { .slice = NSEC_PER_MSEC };
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);
	struct verdict v;
	struct pollfd p;
	struct miss *m;

	setup_real();
	p = (struct pollfd){ .fd = g.dp->ctx.epoll.fd[0], .events = POLLIN };
	send_udp(1, "x");
	datapath_turn(g.dp, &limits);
	m = guest_next_miss(&g);
	v = guest_forward(m, port);
	CHECK_EQ(guest_answer(&g, m, &v), 0);
	flow_mark_closed(&g.dp->ctx.ft, &g.dp->ctx.ft.flows[0], WHY_DONE, 0,
			 clock_now());
	datapath_turn(g.dp, &limits);
	CHECK_EQ(poll(&p, 1, 1000), 1);
	datapath_turn(g.dp, &limits);
	CHECK_EQ(g.dp->ctx.ft.active, 0);
	guest_teardown(&g);
	close(peer);
}

static void slice_bounds_a_turn(void)
{
	struct turn_limits limits = { .slice = 1 };
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);
	struct verdict v;
	struct miss *m;

	setup_real();
	send_udp(1, "x");
	datapath_turn(g.dp, &limits);
	m = guest_next_miss(&g);
	v = guest_forward(m, port);
	CHECK_EQ(guest_answer(&g, m, &v), 0);
	for (int i = 0; i < 3 * TAP_BATCH; i++)
		send_udp(1, "x");
	datapath_turn(g.dp, &limits);
	CHECK_EQ(guest_counter(&g, CNT_TAP_RX_FRAMES), 1 + TAP_BATCH);
	datapath_turn(g.dp, &limits);
	CHECK_EQ(guest_counter(&g, CNT_TAP_RX_FRAMES), 1 + 2 * TAP_BATCH);
	guest_teardown(&g);
	close(peer);
}

int main(void)
{
	RUN(failed_creation_leaves_the_tap);
	RUN(miss_ends_the_turn_and_is_told_once);
	RUN(verdict_opens_and_replays);
	RUN(rate_limit_refills_with_time);
	RUN(gone_tap_is_reported_and_not_polled);
	RUN(idle_datapath_never_spins);
	RUN(vain_spins_are_given_up);
	RUN(pending_miss_arms_the_timer);
	RUN(closed_flow_is_freed_though_nothing_happens);
	RUN(slice_bounds_a_turn);
	return 0;
}
