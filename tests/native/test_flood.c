/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Floods of the guest: who gets through beside one, and what the kernel is told
 *
 * The tap's frames do not come from its socket: a read of it is a full batch
 * of what a test says, for as long as it says so.
 */

#include "base/macros.h"
#include "core/flood.h"
#include "guest.h"

static struct guest g;
static struct tap_ops ops;
static size_t (*make)(uint8_t *frame, unsigned i, struct vnet_hdr *vh);
static unsigned reads;
static uint32_t sieved;
static int sieve_error;

/* read_made() - A batch that leaves more behind, if something is to be made */
static int read_made(struct tap *t)
{
	uint8_t *p = t->rx_buf;

	if (!make)
		return tap_backend("tun")->read(t);
	t->drained = false;
	reads++;
	for (unsigned i = 0; i < TAP_BATCH; i++) {
		t->rx[i].data = p;
		t->rx[i].len = (uint32_t)make(p, i, &t->rx[i].vh);
		p += ROUND_DOWN(t->rx[i].len + 63U, 64U);
	}
	return TAP_BATCH;
}

static int note_sieve(struct tap *t, uint32_t kinds)
{
	(void)t;
	if (!sieve_error)
		sieved = kinds;
	return -sieve_error;
}

static void setup(void)
{
	struct datapath_config config;
	int fd[2];

	ops = *tap_backend("tun");
	ops.read = read_made;
	ops.sieve = note_sieve;
	make = NULL;
	reads = sieved = 0;
	sieve_error = 0;
	guest_socketpair(fd);
	config = guest_config(fd[1]);
	config.backend = &ops;
	g.fd = fd[0];
	g.now = GUEST_START;
	CHECK_EQ(datapath_create(&g.dp, &config), 0);
}

/* open_udp() - A flow from this port of the guest to a socket of loopback */
static void open_udp(uint16_t sport, uint16_t to)
{
	const struct guest_ends ends = { .host = 1,
					 .sport = sport,
					 .dport = 9 };
	const struct vnet_hdr vh = guest_no_csum();
	uint8_t frame[GUEST_FRAME];
	struct verdict v;
	struct miss *m;

	CHECK(guest_send(&g, &vh, frame, guest_udp(frame, &ends, "", 0)));
	guest_turn(&g);
	m = guest_next_miss(&g);
	CHECK(m);
	v = guest_forward(m, to);
	CHECK_EQ(guest_answer(&g, m, &v), 0);
	guest_turn(&g);
}

/* begin() - From now on the tap has these; its socket only says that it does */
static void begin(size_t (*frames)(uint8_t *, unsigned, struct vnet_hdr *))
{
	CHECK_EQ(send(g.fd, "x", 1, 0), 1);
	make = frames;
}

static size_t make_udp(uint8_t *frame, uint16_t sport, uint32_t len,
		       uint16_t segment, struct vnet_hdr *vh)
{
	const struct guest_ends ends = { .host = 1,
					 .sport = sport,
					 .dport = 9 };
	static const uint8_t payload[64];

	*vh = guest_no_csum();
	if (segment) {
		vh->gso_type = VNET_GSO_UDP_L4;
		vh->gso_size = segment;
		vh->hdr_len = ETH_HLEN_ + 20 + 8;
		vh->flags = VNET_F_NEEDS_CSUM;
		vh->csum_start = ETH_HLEN_ + 20;
		vh->csum_offset = 6;
	}
	return guest_udp(frame, &ends, payload, len);
}

/* Super-segments of a byte each, and at the end of each batch one datagram of
 * somebody else */
static size_t uso_and_another(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	return i < TAP_BATCH - 1 ? make_udp(frame, 1, 64, 1, vh) :
				   make_udp(frame, 2, 1, 0, vh);
}

static size_t uso_alone(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	(void)i;
	return make_udp(frame, 1, 64, 1, vh);
}

static size_t known_flow(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	(void)i;
	return make_udp(frame, 1, 1, 0, vh);
}

static size_t arp(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	uint8_t *p = guest_eth(frame, 0x0806);

	(void)i;
	*vh = guest_no_csum();
	memset(p, 0, 28);
	p[1] = 1;
	p[2] = 8;
	p[4] = 6;
	p[5] = 4;
	p[7] = 1;
	return ETH_HLEN_ + 28;
}

static size_t new_flows(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	(void)i;
	return make_udp(frame, (uint16_t)(1000 + reads * TAP_BATCH + i), 1, 0,
			vh);
}

static size_t new_connections(uint8_t *frame, unsigned i, struct vnet_hdr *vh)
{
	struct guest_ends ends = { .host = 1, .dport = 80 };

	ends.sport = (uint16_t)(1000 + reads * TAP_BATCH + i);
	*vh = guest_no_csum();
	return guest_tcp(frame, &ends, TCP_FLAG_SYN, 1, 0, NULL, 0);
}

static unsigned received(int fd)
{
	char byte[64];
	unsigned n = 0;

	while (recv(fd, byte, sizeof(byte), MSG_DONTWAIT) >= 0)
		n++;
	return n;
}

static void costly_datagrams_do_not_stand_in_the_way(void)
{
	uint16_t port, other;
	int flooded = listen_loopback(SOCK_DGRAM, &port);
	int peer = listen_loopback(SOCK_DGRAM, &other);
	unsigned heard = 0;

	setup();
	open_udp(1, port);
	open_udp(2, other);
	wait_readable(peer);
	CHECK_EQ(received(peer), 1);
	begin(uso_and_another);
	for (unsigned i = 0; i < 40; i++) {
		guest_turn(&g);
		while (heard < reads) {
			wait_readable(peer);
			heard += received(peer);
		}
	}
	/* Some 2 ms of work for each batch, were all of it done */
	CHECK(heard > 200);
	CHECK_EQ(heard, reads);
	CHECK(guest_counter(&g, CNT_DROP_OVERLOAD) > 100 * 100);
	guest_teardown(&g);
	close(flooded);
	close(peer);
}

static void alone_nothing_is_dropped(void)
{
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);

	setup();
	open_udp(1, port);
	begin(uso_alone);
	for (unsigned i = 0; i < 40; i++)
		guest_turn(&g);
	CHECK(reads > 10);
	CHECK_EQ(guest_counter(&g, CNT_DROP_OVERLOAD), 0);
	guest_teardown(&g);
	close(peer);
}

static void what_is_refused_too_often_is_dropped_unread(void)
{
	setup();
	begin(arp);
	guest_turn(&g);
	guest_turn(&g);
	CHECK_EQ(sieved, 1U << SIEVE_ARP);
	CHECK_EQ(guest_counter(&g, CNT_FLOODS_DROPPED), 1);

	/* For a while only; and then again, if it goes on */
	make = NULL;
	g.now += FLOOD_WINDOW;
	guest_turn(&g);
	CHECK_EQ(sieved, 0);
	begin(arp);
	guest_turn(&g);
	guest_turn(&g);
	CHECK_EQ(sieved, 1U << SIEVE_ARP);
	CHECK_EQ(guest_counter(&g, CNT_FLOODS_DROPPED), 2);
	guest_teardown(&g);
}

static void what_cannot_be_dropped_unread_is_refused(void)
{
	setup();
	sieve_error = ENOTTY;
	begin(arp);
	for (unsigned i = 0; i < 20; i++)
		guest_turn(&g);
	CHECK_EQ(guest_counter(&g, CNT_FLOODS_DROPPED), 0);
	CHECK(guest_counter(&g, CNT_DROP_PUNT_LIMIT) > 1000);
	guest_teardown(&g);
}

/* admitted() - New flows in 100 ms of a flood */
static unsigned admitted(void)
{
	struct verdict drop = { .action = VERDICT_DROP };
	struct miss *m;
	unsigned n = 0;

	for (unsigned i = 0; i < 1000; i++) {
		guest_turn(&g);
		while ((m = guest_next_miss(&g))) {
			guest_answer(&g, m, &drop);
			n++;
		}
		g.now += 100 * NSEC_PER_USEC;
	}
	return n;
}

static void a_flood_of_new_flows_gets_fewer(void)
{
	unsigned n;

	setup();
	begin(new_flows);
	(void)admitted(); /* what may come at once */
	n = admitted();
	CHECK(n >= FLOODED_RATE / 10 - 1 && n <= FLOODED_RATE / 10 + 1);
	CHECK_EQ(sieved, 0);

	/* It has ended: as many as ever */
	make = NULL;
	g.now += FLOODED_FOR;
	CHECK(!admit_is_flooded(&g.dp->ctx.admit, g.now));
	guest_teardown(&g);
}

/* busy() - Open flows go on, round after round, for as long as a flood is
 * remembered */
static void busy(void)
{
	make = known_flow;
	for (uint64_t t = 0; t < FLOODED_FOR + 2 * FLOOD_WINDOW;
	     t += FLOOD_WINDOW / 4) {
		g.now += FLOOD_WINDOW / 4;
		guest_turn(&g);
	}
}

static void a_flood_ends_while_others_go_on(void)
{
	static const int errors[] = { 0, ENOTTY }; /* of the sieve */
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);

	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
		setup();
		sieve_error = errors[i];
		open_udp(1, port);
		begin(new_connections);
		(void)admitted();
		CHECK(admit_is_flooded(&g.dp->ctx.admit, g.now));
		busy();
		CHECK(!admit_is_flooded(&g.dp->ctx.admit, g.now));
		CHECK_EQ(sieved, 0);
		guest_teardown(&g);
	}
	close(peer);
}

static void a_flood_of_connections_is_dropped_unread(void)
{
	setup();
	begin(new_connections);
	(void)admitted();
	CHECK_EQ(guest_counter(&g, CNT_FLOODS_DROPPED) > 0, 1);
	guest_teardown(&g);
}

int main(void)
{
	RUN(costly_datagrams_do_not_stand_in_the_way);
	RUN(alone_nothing_is_dropped);
	RUN(what_is_refused_too_often_is_dropped_unread);
	RUN(what_cannot_be_dropped_unread_is_refused);
	RUN(a_flood_of_new_flows_gets_fewer);
	RUN(a_flood_ends_while_others_go_on);
	RUN(a_flood_of_connections_is_dropped_unread);
	return 0;
}
