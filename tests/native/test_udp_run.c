/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs of datagrams: whatever is put in comes out as it was, in its order
 *
 * A run is described by total length and size alone; the model cuts it as the
 * kernel does and compares with what went in.
 */

#include "proto/udp_flow.h"
#include "proto/udp_rx.h"
#include "test.h"

#define ROUNDS	  20000
#define INPUT_MAX 300

/** struct input - What was put in: datagrams, and how they were offered */
struct input {
	uint32_t len[INPUT_MAX];
	unsigned n;
};

/* run_check() - Cut a run, and compare with the datagrams that were put in */
static void run_check(const struct udp_run *run, const struct input *in,
		      unsigned *at)
{
	uint32_t left = run->bytes;

	CHECK(run->segs > 0);
	for (unsigned i = 0; i < run->segs; i++) {
		uint32_t len = left < run->size ? left : run->size;

		CHECK_EQ(len, in->len[(*at)++]);
		left -= len;
		CHECK(left || i == run->segs - 1);
	}
	CHECK_EQ(left, 0);
}

/* offer() - Something of one or several datagrams, as a frame or GRO gives it */
static uint32_t offer(struct test_random *r, uint32_t *ret_size)
{
	static const uint32_t sizes[] = { 0, 1, 2, 100, 1400, 1472, 9000 };
	uint32_t size = sizes[test_below(r, ARRAY_SIZE(sizes))];

	*ret_size = size;
	if (!size || test_below(r, 3))
		return size;
	/* Several: the last one may be shorter */
	return size + 1 + test_below(r, MIN(size * 20, 60000 - size));
}

static void record(struct input *in, uint32_t len, uint32_t size)
{
	do {
		uint32_t piece = len < size ? len : size;

		in->len[in->n++] = piece;
		len -= piece;
	} while (len);
}

static void runs_keep_every_datagram(void)
{
	struct test_random r = { 0x1234567 };
	uint32_t joined = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct udp_run run = { 0 };
		struct input in = { .n = 0 };
		unsigned at = 0;

		for (unsigned i = 0; i < 10; i++) {
			uint32_t size, len = offer(&r, &size);

			if (!udp_run_fits(&run, len, size, UDP_RUN_MAX6)) {
				run_check(&run, &in, &at);
				run = (struct udp_run){ 0 };
			} else if (run.segs) {
				joined++;
			}
			udp_run_add(&run, len, size);
			record(&in, len, size);
			CHECK(run.bytes <= UDP_RUN_MAX6);
		}
		run_check(&run, &in, &at);
		CHECK_EQ(at, in.n);
	}
	CHECK(joined > ROUNDS);
}

static void a_run_has_its_limits(void)
{
	struct udp_run run = { 0 };

	for (unsigned i = 0; i < UDP_RUN_SEGS; i++) {
		CHECK(udp_run_fits(&run, 1, 1, UDP_RUN_MAX4));
		udp_run_add(&run, 1, 1);
	}
	CHECK(!udp_run_fits(&run, 1, 1, UDP_RUN_MAX4));

	run = (struct udp_run){ 0 };
	udp_run_add(&run, 40000, 40000);
	CHECK(!udp_run_fits(&run, 40000, 40000, UDP_RUN_MAX4));
	CHECK(udp_run_fits(&run, 25507, 25507, UDP_RUN_MAX4));
	CHECK(!udp_run_fits(&run, 25508, 25508, UDP_RUN_MAX4));
}

static void batches_grow_when_they_are_full(void)
{
	unsigned n = 2;

	for (unsigned i = 0; i < 10; i++)
		n = udp_rx_next(n, n, false);
	CHECK_EQ(n, UDP_RX_SMALL);
	CHECK_EQ(udp_rx_next(n, n, true), UDP_RX_LARGE);
	CHECK(udp_rx_next(n, 20, false) >= 20);
	CHECK(udp_rx_next(n, 20, false) < UDP_RX_SMALL);
	CHECK_EQ(udp_rx_next(n, 20, true), UDP_RX_LARGE);
	for (unsigned i = 0; i < 10; i++)
		n = udp_rx_next(n, 1, false);
	CHECK_EQ(n, 2);
}

int main(void)
{
	RUN(runs_keep_every_datagram);
	RUN(a_run_has_its_limits);
	RUN(batches_grow_when_they_are_full);
	return 0;
}
