/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All UDP ports of a guest are in use: what is idle makes room, nothing else
 *
 * Three ports are all that there are here.
 */

#include "guest.h"
#include "proto/udp_port.h"

#define PORTS 3

/** struct world - A guest with few ports, and who it speaks to
 * @g:		The guest
 * @peer:	The remote's socket
 * @port:	Its port
 */
static struct world {
	struct guest g;
	int peer;
	uint16_t port;
} w;

static void world_setup(void)
{
	struct udp_ports *ports;

	guest_setup(&w.g);
	w.peer = listen_loopback(SOCK_DGRAM, &w.port);
	ports = w.g.dp->ctx.shared[FLOW_UDP];
	ports->ports.max = PORTS;
}

static void world_free(void)
{
	close(w.peer);
	guest_teardown(&w.g);
}

static void wait_s(unsigned seconds)
{
	w.g.now += seconds * NSEC_PER_SEC;
	CHECK_EQ(guest_turn(&w.g), 0);
}

/* ask() - The guest sends from a port to a name of the remote; what came of a
 * new flow: 0 or -errno */
static int ask(uint16_t sport, uint8_t host)
{
	struct guest_ends ends = { .host = host, .sport = sport, .dport = 53 };
	struct vnet_hdr vh = guest_no_csum();
	uint8_t frame[128];
	struct verdict v;
	struct miss *m;
	size_t len;

	len = guest_udp(frame, &ends, "?", 1);
	CHECK(guest_send(&w.g, &vh, frame, len));
	CHECK_EQ(guest_turn(&w.g), 0);
	m = guest_next_miss(&w.g);
	if (!m)
		return 0;
	v = guest_forward(m, w.port);
	/* Two names: the same port of two addresses */
	v.side.eaddr.a6.s6_addr[15] = host;
	return guest_answer(&w.g, m, &v);
}

/* is_open() - Is there a flow from a port of the guest? */
static bool is_open(uint16_t sport)
{
	const struct flow_table *ft = &w.g.dp->ctx.ft;

	for (uint32_t i = 0; i < ft->top; i++) {
		flow_sidx_t sidx = { .flow = i };
		const struct flow *flow = flow_at(ft, sidx);

		if (flow && flow->f.side[INISIDE].eport == sport)
			return true;
	}
	return false;
}

static void test_the_flow_that_was_idle_longest_makes_room(void)
{
	world_setup();
	CHECK_EQ(ask(1001, 1), 0);
	wait_s(3);
	CHECK_EQ(ask(1002, 1), 0);
	CHECK_EQ(ask(1003, 1), 0);
	CHECK_EQ(ask(1004, 1), 0);
	CHECK(!is_open(1001));
	CHECK(is_open(1002) && is_open(1003) && is_open(1004));
	CHECK_EQ(guest_counter(&w.g, CNT_FLOWS_EVICTED), 1);
	CHECK_EQ(guest_counter(&w.g, CNT_UDP_PORTS_FULL), 0);
	world_free();
}

static void test_flows_in_use_make_none(void)
{
	world_setup();
	for (uint16_t i = 0; i < PORTS; i++)
		CHECK_EQ(ask((uint16_t)(1001 + i), 1), 0);
	wait_s(1);
	CHECK_EQ(ask(1004, 1), -ENFILE);
	CHECK(is_open(1001) && is_open(1002) && is_open(1003));
	CHECK_EQ(guest_counter(&w.g, CNT_UDP_PORTS_FULL), 1);
	world_free();
}

static void test_all_flows_of_a_port_end_with_it(void)
{
	world_setup();
	CHECK_EQ(ask(1001, 1), 0);
	CHECK_EQ(ask(1001, 2), 0);
	wait_s(3);
	CHECK_EQ(ask(1002, 1), 0);
	CHECK_EQ(ask(1003, 1), 0);
	CHECK_EQ(ask(1004, 1), 0);
	CHECK(!is_open(1001) && is_open(1004));
	CHECK_EQ(guest_counter(&w.g, CNT_FLOWS_EVICTED), 2);
	wait_s(40);
	wait_s(1); /* flows that ended are cleared away */
	CHECK_EQ(w.g.dp->ctx.ft.active, 0);
	CHECK_EQ(((struct udp_ports *)w.g.dp->ctx.shared[FLOW_UDP])->ports.used,
		 0);
	world_free();
}

int main(void)
{
	RUN(test_the_flow_that_was_idle_longest_makes_room);
	RUN(test_flows_in_use_make_none);
	RUN(test_all_flows_of_a_port_end_with_it);
	return 0;
}
