/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath.h - A hostile guest against a whole datapath with real peers
 *
 * Of each backend, by its name: a tap device takes each frame at once, a stream
 * later, rings when the machine has offered buffers. Besides sanitizer reports,
 * assertions and leaks, oracle.h looks at each frame for the guest; afterwards a
 * good connection must work.
 */
#ifndef PASSTPY_TESTS_DATAPATH_H
#define PASSTPY_TESTS_DATAPATH_H

#include "control.h"
#include "hear.h"
#include "peers.h"
#include "say.h"

#define FRAMES 32  /* frames of one step at most */
#define DRAINS 200 /* turns until all flows must be gone */

/* come_back() - Another machine, or the same one again */
static inline void come_back(void)
{
	guest_leave(&world.g);
	for (uint32_t n = below(3); n; n--) {
		CHECK_EQ(guest_turn(&world.g), 0);
		play_control();
		play_peers();
	}
	guest_come(&world.g, any_features());
}

/* run_turn() - Virtual time never ends a slice: a socket that stays ready
 * without progress is a turn without end, which is found by its time */
static inline void run_turn(void)
{
	int err = guest_turn(&world.g);

	CHECK(!err || is_machine());
	if (datapath_take_gone(world.g.dp))
		come_back();
}

/* spoil_rings() - Nonsense in what the driver writes, then it starts anew */
static inline void spoil_rings(void)
{
	struct vring *r = &rings.ring[below(VHOST_QUEUES)];

	for (uint32_t n = 1 + below(4); n; n--) {
		any_bytes((uint8_t *)&r->desc[below(RINGS_SIZE)],
			  sizeof(*r->desc));
		if (one_in(2))
			r->avail->idx = (uint16_t)below(65536);
		r->avail->ring[below(RINGS_SIZE)] = (uint16_t)below(65536);
	}
	rings_kick(&rings, VHOST_FROM_GUEST);
	(void)guest_turn(&world.g);
	(void)datapath_take_gone(world.g.dp);
	come_back();
}

/* leave_rudely() - In a way that its link has */
static inline void leave_rudely(void)
{
	uint8_t nonsense[8];

	if (world.g.rings) {
		spoil_rings();
	} else if (world.g.stream && one_in(2)) {
		any_bytes(nonsense, sizeof(nonsense));
		(void)send(world.g.fd, nonsense, sizeof(nonsense),
			   MSG_NOSIGNAL);
		run_turn();
		come_back(); /* what follows would be part of that frame */
	} else if (is_machine()) {
		come_back();
	}
}

static inline void step(void)
{
	for (uint32_t n = 1 + below(FRAMES); n; n--)
		send_frame();
	run_turn();
	play_control();
	if (!one_in(10))
		hear();
	if (one_in(100))
		leave_rudely();
	world.g.now += below(20) * NSEC_PER_MSEC;
	if (one_in(200))
		world.g.now += below(200) * NSEC_PER_SEC;
	play_peers();
	play_relay();
}

/* After all that, the datapath must still serve */

static inline bool is_drained(void)
{
	return !ctx_of()->stage.pending && !ctx_of()->ft.active;
}

static inline void drain(void)
{
	close_peers();
	tap_faults_set(&ctx_of()->tap, 0, 0, 0);
	for (unsigned i = 0; i < DRAINS && (i < 3 || !is_drained()); i++) {
		int fd;

		while ((fd = accept(world.tcp_fd, NULL, NULL)) >= 0)
			close(fd);
		world.g.now += 3600 * NSEC_PER_SEC;
		run_turn();
		while (guest_next_miss(&world.g))
			;
		hear();
	}
	CHECK(is_drained());
	flow_table_check(&ctx_of()->ft);
}

static inline void send_good(const struct conn *c, uint8_t flags,
			     const char *text)
{
	struct vnet_hdr vh = guest_no_csum();
	size_t len = guest_tcp(frame, &c->ends, flags, c->seq, c->ack, text,
			       (uint32_t)strlen(text));

	if (is_machine())
		guest_mend(frame, len);
	CHECK(guest_send(&world.g, &vh, frame, len));
	CHECK_EQ(guest_turn(&world.g), 0);
}

/* hear_answer() - The next segment, which may take its time over loopback */
static inline void hear_answer(struct heard *h)
{
	while (!hear_one(h)) {
		wait_readable(ctx_of()->epoll.fd[EPOLL_MAIN]);
		CHECK_EQ(guest_turn(&world.g), 0);
	}
}

static inline void serve_once(void)
{
	struct conn *c = &world.conn[0];
	struct verdict v;
	struct heard h;
	struct miss *m;
	uint16_t port;
	int fd, server;
	char text[9];

	server = listen_loopback(SOCK_STREAM, &port); /* for nobody else */
	if (is_machine()) { /* a frame of which a part was sent would go first */
		guest_leave(&world.g);
		guest_come(&world.g, VHOST_FEATURES);
	}
	*c = (struct conn){ .ends = { .host = 1, .sport = 999, .dport = 80 } };
	send_good(c, TCP_FLAG_SYN, "");
	/* What was on its way to a port of the guest's may be a miss as well */
	while ((m = guest_next_miss(&world.g)) && m->pif != PIF_TAP)
		;
	CHECK(m);
	v = guest_forward(m, port);
	CHECK_EQ(guest_answer(&world.g, m, &v), 0);
	CHECK_EQ(guest_turn(&world.g), 0);
	hear_answer(&h);
	CHECK_EQ(h.tcp.flags, TCP_FLAG_SYN | TCP_FLAG_ACK);
	c->ack = ntohl(h.tcp.seq) + 1;
	wait_readable(server);
	fd = accept(server, NULL, NULL);
	CHECK(fd >= 0);
	c->seq = 1;
	send_good(c, TCP_FLAG_ACK, "");
	send_good(c, TCP_FLAG_ACK | TCP_FLAG_PSH, "all well");
	CHECK_EQ(recv(fd, text, sizeof(text), 0), 8);
	CHECK_EQ(memcmp(text, "all well", 8), 0);
	close(fd);
	close(server);
}

static inline void end(void)
{
	drain();
	serve_once();
	CHECK(!drive_long || world.exchanged);
	CHECK(!drive_long || guest_counter(&world.g, CNT_ICMP_ERRORS_TO_TAP));
	CHECK(!drive_long || guest_counter(&world.g, CNT_UDP_RELAY_BAD));
	world_end();
}

/* FUZZ_DATAPATH() - The program for one backend */
#define FUZZ_DATAPATH(backend)                                                \
	static void begin(void)                                               \
	{                                                                     \
		world_begin(backend);                                         \
	}                                                                     \
	static const struct target target = { begin, step, end, FRAMES / 2 }; \
	FUZZ(target)

#endif /* PASSTPY_TESTS_DATAPATH_H */
