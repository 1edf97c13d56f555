/* SPDX-License-Identifier: GPL-2.0-or-later */
/* captures.h - Captures that come and go while a fuzzer runs
 *
 * They look into each frame before anybody has checked it.
 */
#ifndef PASSTPY_TESTS_CAPTURES_H
#define PASSTPY_TESTS_CAPTURES_H

#include "core/datapath.h"
#include "link/capture.h"
#include "test.h"

/* check_blocks() - Is what was taken as many whole blocks as it is said to be? */
static inline void check_blocks(const struct capture_take *take)
{
	uint32_t at = 0, size, again;
	uint64_t packets = 0;

	for (; at < take->len; at += size, packets++) {
		memcpy(&size, take->out + at + 4, sizeof(size));
		CHECK(size % 4 == 0 && size <= take->len - at);
		memcpy(&again, take->out + at + size - 4, sizeof(again));
		CHECK_EQ(size, again);
	}
	CHECK_EQ(packets, take->packets);
}

/* play_captures() - Begin, empty or end one */
static inline void play_captures(struct datapath *dp, struct test_random *rnd)
{
	static const struct filter_step https = { .code = FILTER_PORT,
						  .low = 81,
						  .high = 81 };
	static uint8_t out[200000];
	struct capture_wish wish = { &https, test_below(rnd, 2),
				     1 + test_below(rnd, 3),
				     1 + test_below(rnd, CAPTURE_SNAPLEN) };
	struct capture_take take = { .out = out,
				     .room = test_below(rnd, sizeof(out)),
				     .packets_max = 1 + test_below(rnd, 1000),
				     .last = !test_below(rnd, 2) };
	struct captures **set = &dp->ctx.tap.captures;
	unsigned n = test_below(rnd, CAPTURES_MAX);

	if (!test_below(rnd, 2)) {
		(void)capture_start(set, &dp->ctx.ft, &dp->ctx.now, &wish, &n);
	} else if (*set && (*set)->list[n]) {
		capture_take(*set, n, &take);
		check_blocks(&take);
		if (!test_below(rnd, 4))
			capture_stop(set, n);
	}
}

#endif /* PASSTPY_TESTS_CAPTURES_H */
