/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reassembly against the plainest model: datagrams cut at random, shuffled */

#include <netinet/icmp6.h>

#include "base/macros.h"
#include "guest.h"
#include "link/frame.h"
#include "link/reassembly.h"

#define ROUNDS	  3000
#define DATAGRAMS 8    /* in flight at a time */
#define PIECES	  64   /* of one datagram at most */
#define LEN_MAX	  4000 /* bytes of one datagram */

/** struct piece - One fragment: a frame as the guest sends it */
struct piece {
	uint8_t data[ETH_HLEN_ + 48 + LEN_MAX];
	uint32_t len;
	unsigned whose;
};

static struct reassembly r;
static struct counters cnt;
static struct tap tap;
static int guest_fd;
static struct test_random rnd = { 42 };
static uint8_t whole[DATAGRAMS][GUEST_FRAME];
static size_t whole_len[DATAGRAMS];
static struct piece pieces[DATAGRAMS * PIECES];
static unsigned n_pieces;

static void setup(void)
{
	const struct tap_env env = { .cnt = &cnt };
	int fd[2];

	guest_socketpair(fd);
	guest_fd = fd[0];
	memset(&cnt, 0, sizeof(cnt));
	memset(&tap, 0, sizeof(tap));
	CHECK_EQ(tap_init(&tap, &tap_tun_ops, &env), 0);
	CHECK_EQ(tap_attach(&tap, fd[1]), 0);
	tap.mtu = 1500;
	CHECK_EQ(reassembly_init(&r), 0);
}

static void teardown(void)
{
	reassembly_free(&r);
	tap_free(&tap);
	close(guest_fd);
}

/* add_piece() - Bytes @from to @to of what follows the IP header */
static void add_piece(unsigned whose, uint32_t from, uint32_t to, bool more)
{
	struct piece *p = &pieces[n_pieces++];
	bool v4 = whole[whose][12] == 8;
	uint32_t l3 = ETH_HLEN_ + (v4 ? 20 : 40);

	p->whose = whose;
	memcpy(p->data, whole[whose], l3);
	memcpy(p->data + l3, whole[whose] + l3 + from, to - from);
	if (v4)
		((struct ip4_hdr *)(p->data + ETH_HLEN_))->tot_len =
			htons((uint16_t)(20 + to - from));
	else
		((struct ip6_hdr_ *)(p->data + ETH_HLEN_))->payload_len =
			htons((uint16_t)(to - from));
	p->len = (uint32_t)guest_fragment(p->data, l3 + to - from, whose, more,
					  (uint16_t)from);
}

static void cut_at_random(unsigned whose)
{
	uint32_t l3 = ETH_HLEN_ + (whole[whose][12] == 8 ? 20 : 40);
	uint32_t total = (uint32_t)whole_len[whose] - l3, to;
	unsigned first = n_pieces;

	for (uint32_t from = 0; from < total; from = to) {
		uint32_t step = 8 * (1 + test_below(&rnd, 60));

		to = n_pieces - first == PIECES / 2 ? total :
						      MIN(from + step, total);
		add_piece(whose, from, to, to < total);
		if (!test_below(&rnd, 8)) /* twice */
			add_piece(whose, from, to, to < total);
	}
}

static void shuffle(void)
{
	for (unsigned i = n_pieces; i > 1; i--) {
		unsigned k = test_below(&rnd, i);
		struct piece spare = pieces[i - 1];

		pieces[i - 1] = pieces[k];
		pieces[k] = spare;
	}
}

/* take_frame() - Let reassembly have it; true if that completes a datagram */
static bool take_frame(uint8_t *data, uint32_t size, uint64_t now,
		       uint8_t **eth, uint32_t *len)
{
	struct frame f;

	CHECK_EQ(flow_extract(&f, data, size, NULL, &cnt), EXTRACT_FRAGMENT);
	return reassembly_add(&r, &tap, &f, now, eth, len);
}

static bool take(struct piece *p, uint64_t now, uint8_t **eth, uint32_t *len)
{
	return take_frame(p->data, p->len, now, eth, len);
}

static void check_whole(unsigned whose, const uint8_t *eth, uint32_t len)
{
	uint32_t l3 = ETH_HLEN_ + (whole[whose][12] == 8 ? 20 : 40);

	CHECK_EQ(len, whole_len[whose]);
	CHECK(!memcmp(eth + l3, whole[whose] + l3, len - l3));
}

/* Late copies of a finished datagram begin another one, which is never whole
 * unless all of it comes again: so each is done once or, rarely, twice */
static void datagrams_come_out_as_they_went_in(void)
{
	static uint8_t payload[LEN_MAX];
	uint64_t now = 1, made = 0;

	setup();
	for (unsigned i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned done[DATAGRAMS] = { 0 };

		n_pieces = 0;
		for (unsigned i = 0; i < DATAGRAMS; i++) {
			struct guest_ends ends = { .v6 = i % 2,
						   .host = 1,
						   .sport = 1000,
						   .dport = 2000 };
			uint32_t len = 1 + test_below(&rnd, LEN_MAX - 8);

			whole_len[i] = guest_udp(whole[i], &ends, payload, len);
			cut_at_random(i);
		}
		shuffle();
		for (unsigned i = 0; i < n_pieces; i++) {
			uint8_t *eth;
			uint32_t len;

			if (pieces[i].len ==
				    whole_len[pieces[i].whose] +
					    8 * (pieces[i].whose % 2) ||
			    !take(&pieces[i], now, &eth, &len))
				continue;
			check_whole(pieces[i].whose, eth, len);
			done[pieces[i].whose]++;
			made++;
			if (!test_below(&rnd, 3))
				reassembly_release(&r);
		}
		for (unsigned i = 0; i < DATAGRAMS; i++)
			CHECK(done[i] <= 2);
		reassembly_release(&r);
		now += REASSEMBLY_TIME + 1;
		reassembly_expire(&r, &tap, now);
		CHECK_EQ(r.bufs.used, 0);
		CHECK_EQ(r.done, 0);
		CHECK_EQ(r.next_expiry, UINT64_MAX);
	}
	CHECK_EQ(cnt.n[CNT_DROP_FRAGMENT], 0);
	CHECK_EQ(cnt.n[CNT_REASSEMBLED], made);
	CHECK(made > ROUNDS * DATAGRAMS * 9 / 10);
	teardown();
}

static void nothing_grows_beyond_its_bounds(void)
{
	struct guest_ends ends = { .host = 1, .sport = 1, .dport = 2 };
	static uint8_t payload[LEN_MAX];

	setup();
	for (unsigned i = 0; i < 10 * REASSEMBLY_MAX; i++) {
		struct ip4_hdr *ih;
		uint8_t *eth;
		uint32_t len;

		whole_len[0] = guest_udp(whole[0], &ends, payload, 1000);
		n_pieces = 0;
		add_piece(0, 0, 504, true);
		ih = (struct ip4_hdr *)(pieces[0].data + ETH_HLEN_);
		ih->id = htons((uint16_t)i);
		ih->check = 0;
		ih->check = (uint16_t)~csum_fold(csum_add(ih, 20, 0));
		CHECK(!take(&pieces[0], 1 + i, &eth, &len));
		CHECK(r.bufs.used <= REASSEMBLY_MAX);
	}
	CHECK_EQ(cnt.n[CNT_REASSEMBLY_EVICTED], 9 * REASSEMBLY_MAX);
	teardown();
}

/* machine_says() - Frames of a machine, in one write as its socket carries them */
static void machine_says(const struct piece *p, unsigned n)
{
	static uint8_t out[8 * (4 + GUEST_FRAME)];
	size_t len = 0;

	for (; n--; p++) {
		uint32_t prefix = htonl(p->len);

		memcpy(out + len, &prefix, sizeof(prefix));
		memcpy(out + len + sizeof(prefix), p->data, p->len);
		len += sizeof(prefix) + p->len;
	}
	CHECK_EQ(write(guest_fd, out, len), len);
}

/* setup_machine() - A tap that sends nothing before it is flushed */
static void setup_machine(void)
{
	const struct tap_env env = { .cnt = &cnt };
	int fd[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	guest_fd = fd[0];
	memset(&cnt, 0, sizeof(cnt));
	memset(&tap, 0, sizeof(tap));
	CHECK_EQ(tap_init(&tap, &tap_stream_ops, &env), 0);
	CHECK_EQ(tap_attach(&tap, fd[1]), 0);
	tap.mtu = 1500;
	CHECK_EQ(reassembly_init(&r), 0);
}

/* check_quote() - The machine got one ICMPv6 error, about packet @p */
static void check_quote(const struct piece *p, uint8_t type)
{
	static uint8_t in[4 + GUEST_FRAME];
	const uint8_t *icmp = in + 4 + ETH_HLEN_ + 40;
	ssize_t n = read(guest_fd, in, sizeof(in));

	CHECK(n > 4 + ETH_HLEN_ + 40 + 8);
	CHECK_EQ(icmp[0], type);
	CHECK(!memcmp(icmp + 8, p->data + ETH_HLEN_, p->len - ETH_HLEN_));
	CHECK_EQ((size_t)n,
		 4 + ETH_HLEN_ + 40 + 8 + (size_t)(p->len - ETH_HLEN_));
}

/* setup_two_datagrams() - Of a machine over IPv6, each of one letter, not cut yet */
static void setup_two_datagrams(void)
{
	struct guest_ends ends = { .v6 = 1, .host = 1, .sport = 1, .dport = 2 };
	static uint8_t payload[LEN_MAX];

	setup_machine();
	memset(payload, 'a', sizeof(payload));
	whole_len[0] = guest_udp(whole[0], &ends, payload, 600);
	memset(payload, 'b', sizeof(payload));
	whole_len[1] = guest_udp(whole[1], &ends, payload, 600);
	n_pieces = 0;
}

/* What is wrong with a fragment is told when the round ends. Until then another
 * read may put other frames where the fragment was */
static void next_read_leaves_a_quote_alone(void)
{
	uint8_t *eth;
	uint32_t len;

	setup_two_datagrams();
	add_piece(0, 0, 500, true); /* no multiple of eight */
	add_piece(1, 0, 504, true);

	machine_says(&pieces[0], 1);
	CHECK_EQ(tap_read(&tap), 1);
	CHECK_EQ(tap.rx[0].len, pieces[0].len);
	CHECK(!take_frame(tap.rx[0].data, tap.rx[0].len, 1, &eth, &len));
	machine_says(&pieces[1], 1);
	CHECK_EQ(tap_read(&tap), 1);
	CHECK(!take_frame(tap.rx[0].data, tap.rx[0].len, 1, &eth, &len));
	tap_flush(&tap);
	check_quote(&pieces[0], ICMP6_PARAM_PROB);
	teardown();
}

/* The same for the quote of a datagram that never became whole: its buffer is
 * another one's before the round ends */
static void next_datagram_leaves_a_quote_alone(void)
{
	uint8_t *eth;
	uint32_t len;

	setup_two_datagrams();
	add_piece(0, 0, 504, true);
	add_piece(1, 0, 504, true);

	CHECK(!take(&pieces[0], 1, &eth, &len));
	reassembly_expire(&r, &tap, 1 + REASSEMBLY_TIME);
	CHECK_EQ(r.bufs.used, 0);
	CHECK(!take(&pieces[1], 2, &eth, &len));
	tap_flush(&tap);
	check_quote(&pieces[0], ICMP6_TIME_EXCEEDED);
	teardown();
}

int main(void)
{
	RUN(next_read_leaves_a_quote_alone);
	RUN(next_datagram_leaves_a_quote_alone);
	RUN(datagrams_come_out_as_they_went_in);
	RUN(nothing_grows_beyond_its_bounds);
	return 0;
}
