/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is kept of datagrams that may have to go to the other family, and of whom */

#include <string.h>

#include "table/crossing.h"
#include "test.h"

#define NOW (100 * NSEC_PER_SEC)

/* count_kept() - Datagrams that are kept of a flow */
static unsigned count_kept(const struct crossings *x, uint16_t slot,
			   uint64_t flow_id, uint64_t now)
{
	uint32_t pos = 0, len;
	unsigned n = 0;

	while (crossings_next(x, slot, flow_id, now, &pos, &len))
		n++;
	return n;
}

static void test_datagrams_come_back_in_order(void)
{
	struct crossings x;
	uint32_t pos = 0, len;
	const uint8_t *data;
	uint16_t slot;

	CHECK_EQ(crossings_init(&x), 0);
	slot = crossings_begin(&x, 7, NOW);
	crossings_keep(&x, slot, "first", 5);
	crossings_keep(&x, slot, "", 0);
	crossings_keep(&x, slot, "third", 5);
	data = crossings_next(&x, slot, 7, NOW, &pos, &len);
	CHECK(data && len == 5 && !memcmp(data, "first", 5));
	CHECK(crossings_next(&x, slot, 7, NOW, &pos, &len) && !len);
	data = crossings_next(&x, slot, 7, NOW, &pos, &len);
	CHECK(data && len == 5 && !memcmp(data, "third", 5));
	CHECK(!crossings_next(&x, slot, 7, NOW, &pos, &len));
	crossings_free(&x);
	crossings_free(&x); /* twice is harmless */
}

static void test_what_does_not_fit_is_left_out(void)
{
	static uint8_t data[CROSSING_BUF];
	struct crossings x;
	uint16_t slot;

	CHECK_EQ(crossings_init(&x), 0);
	slot = crossings_begin(&x, 7, NOW);
	crossings_keep(&x, slot, data, CROSSING_BUF);
	CHECK_EQ(count_kept(&x, slot, 7, NOW), 0);
	crossings_keep(&x, slot, data, UINT16_MAX);
	for (uint32_t len = 4000; len < CROSSING_BUF; len++) {
		slot = crossings_begin(&x, len, NOW);
		crossings_keep(&x, slot, data, len); /* at the very edge too */
		crossings_keep(&x, slot, data, CROSSING_BUF - len);
		CHECK(count_kept(&x, slot, len, NOW) <= 1);
	}
	slot = crossings_begin(&x, 9, NOW);
	for (int i = 0; i < 100; i++)
		crossings_keep(&x, slot, data, 1200);
	CHECK_EQ(count_kept(&x, slot, 9, NOW), 3);
	crossings_free(&x);
}

static void test_a_slot_is_of_its_last_flow_for_a_time(void)
{
	struct crossings x;
	uint16_t slot, last = 0;

	CHECK_EQ(crossings_init(&x), 0);
	slot = crossings_begin(&x, 1, NOW);
	crossings_keep(&x, slot, "x", 1);
	CHECK_EQ(count_kept(&x, slot, 1, NOW + CROSSING_AGE - 1), 1);
	CHECK_EQ(count_kept(&x, slot, 1, NOW + CROSSING_AGE), 0);
	CHECK_EQ(count_kept(&x, slot, 2, NOW), 0);
	for (uint64_t id = 2; id < 1000; id++)
		last = crossings_begin(&x, id, NOW);
	CHECK(last < CROSSING_FLOWS);
	CHECK_EQ(count_kept(&x, slot, 1, NOW), 0);
	crossings_free(&x);
}

static void test_the_last_flow_of_a_listener_is_known(void)
{
	struct crossings x;

	CHECK_EQ(crossings_init(&x), 0);
	crossings_serve(&x, 5, 77);
	CHECK_EQ(crossings_served(&x, 5), 77);
	CHECK_EQ(crossings_served(&x, 5 + CROSSING_SERVED), 0);
	crossings_serve(&x, 5, 78);
	CHECK_EQ(crossings_served(&x, 5), 78);
	crossings_serve(&x, 5 + CROSSING_SERVED, 79); /* takes its place */
	CHECK_EQ(crossings_served(&x, 5), 0);
	CHECK_EQ(crossings_served(&x, 5 + CROSSING_SERVED), 79);
	crossings_free(&x);
}

int main(void)
{
	RUN(test_datagrams_come_back_in_order);
	RUN(test_what_does_not_fit_is_left_out);
	RUN(test_a_slot_is_of_its_last_flow_for_a_time);
	RUN(test_the_last_flow_of_a_listener_is_known);
	return 0;
}
