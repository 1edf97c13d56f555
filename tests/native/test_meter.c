/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of bytes a second, of all speeds: what passes of twice as much, and how
 * much at once */

#include <string.h>

#include "base/macros.h"
#include "table.h"
#include "table/meter.h"
#include "table/ready.h"

#define RULE	   7 /* of table_open() */
#define FLOWS	   10
#define AT_ONCE_NS (100 * NSEC_PER_MSEC)
#define MBIT	   (1000 * 1000 / 8) /* bytes */

static const uint64_t rates[] = { MBIT, 10 * MBIT, 100 * MBIT, 1000 * MBIT,
				  5000ULL * MBIT };

static struct table t;
static struct flow *flows[FLOWS];
static uint64_t now;

/** struct watch - Has any time brought more than its share and 100 ms worth?
 * @rate:	Bytes a second that are allowed
 * @most:	Bytes that are allowed at once
 * @level:	Bytes beyond the rate, times NSEC_PER_SEC
 * @at:		ns that @level is of
 * @total:	Bytes that moved
 */
static struct watch {
	uint64_t rate;
	uint64_t most;
	uint64_t level;
	uint64_t at;
	uint64_t total;
} watch;

static void watch_start(uint64_t rate, uint32_t size)
{
	uint64_t most = rate / (NSEC_PER_SEC / AT_ONCE_NS);

	/* One of a few packets always goes, and one datagram of any length */
	most = MAX(most, MAX(6000ULL, (uint64_t)size));
	watch = (struct watch){ .rate = rate, .most = most, .at = now };
}

static void watch_moved(uint64_t bytes)
{
	watch.level -= MIN(watch.level, watch.rate * (now - watch.at));
	watch.level += bytes * NSEC_PER_SEC;
	watch.at = now;
	watch.total += bytes;
	CHECK(watch.level <= (watch.most + 1) * NSEC_PER_SEC);
}

/* watch_end() - Within 5 % of what the rate brought in so many ns */
static void watch_end(uint64_t ns, uint64_t size)
{
	double due = (double)watch.rate * (double)ns / (double)NSEC_PER_SEC;
	double got = (double)watch.total;

	if (got < 0.95 * due || got > 1.05 * due)
		printf("rate %" PRIu64 " size %" PRIu64 ": %.3f\n", watch.rate,
		       size, got / due);
	CHECK(got >= 0.95 * due);
	CHECK(got <= 1.05 * due);
}

static void setup(uint64_t rate, uint32_t rule, enum meter_dir dir)
{
	struct meter_limits limits = { 0 };

	limits.rate[dir] = rate;
	now = NSEC_PER_SEC;
	table_setup(&t, 64);
	CHECK_EQ(meters_set(&t.ft, rule, &limits, now), 0);
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct flowside ini = table_side(2 * i);
		struct flowside tgt = table_side(2 * i + 1);

		flows[i] = table_open(&t, &ini, &tgt, now);
		CHECK(flows[i]);
	}
}

static unsigned from_of(enum meter_dir dir)
{
	return dir == METER_OUT ? INISIDE : TGTSIDE;
}

/** struct offer - Datagrams that somebody sends
 * @bytes:	Of a message
 * @size:	Of the datagrams that it is cut into
 * @percent:	Of the rate
 * @period:	ns between bursts; 0: one message after another
 */
struct offer {
	uint32_t bytes;
	uint32_t size;
	unsigned percent;
	uint64_t period;
};

/* offer_for() - Send for so many ns; a burst is what a period brought */
static void offer_for(const struct offer *o, enum meter_dir dir, uint64_t ns)
{
	uint64_t rate = watch.rate * o->percent / 100, begin = now, sent = 0;
	uint64_t at;

	while ((at = sent * NSEC_PER_SEC / rate) < ns) {
		now = begin + at;
		if (o->period)
			now += o->period - at % o->period;
		watch_moved(meter_datagrams(&t.ft, flows[0], from_of(dir),
					    o->bytes, o->size, now));
		sent += o->bytes;
	}
	now = begin + ns;
}

static void check_offer(uint64_t rate, const struct offer *o, uint32_t rule,
			enum meter_dir dir)
{
	uint64_t ns = rate > 100 * MBIT ? 300 * NSEC_PER_MSEC : NSEC_PER_SEC;
	uint64_t saved = 0, got;

	ns = MAX(ns, 40 * (o->size * NSEC_PER_SEC / rate));
	setup(rate, rule, dir);
	do { /* what was saved is no part of a rate */
		got = meter_datagrams(&t.ft, flows[0], from_of(dir), o->bytes,
				      o->size, now);
		saved += got;
		CHECK(saved <= rate + o->bytes);
	} while (got == o->bytes);
	watch_start(rate, o->size);
	offer_for(o, dir, ns);
	watch_end(ns, o->size);
	table_teardown(&t);
}

static const struct offer messages[] = {
	{ .bytes = 100, .size = 100 },
	{ .bytes = 1400, .size = 1400 },
	{ .bytes = 65000, .size = 65000 },
	{ .bytes = 44 * 1400, .size = 1400 }, /* as offload joins them */
};

/* check_offers() - Messages of every length at every speed
 * @worth:	ns that a message brings at most: who sends more at once loses
 *		what no bucket holds
 */
static void check_offers(unsigned percent, uint64_t period, uint64_t worth)
{
	static const uint32_t rules[] = { RULE, METER_GUEST };

	for (unsigned i = 0; i < ARRAY_SIZE(rates) * ARRAY_SIZE(messages);
	     i++) {
		struct offer o = messages[i % ARRAY_SIZE(messages)];
		uint64_t rate = rates[i / ARRAY_SIZE(messages)];

		o.percent = percent;
		o.period = period;
		if (o.bytes * NSEC_PER_SEC / rate <= worth)
			check_offer(rate, &o, rules[i % 2], i / 2 % 2);
	}
}

static void test_datagrams_get_their_rate(void)
{
	check_offers(200, 0, 50 * NSEC_PER_MSEC);
}

static void test_a_little_more_than_the_rate_fills_it(void)
{
	check_offers(110, 0, 52 * NSEC_PER_MSEC);
	check_offers(130, 0, 52 * NSEC_PER_MSEC);
}

static void test_bursts_fill_the_rate(void)
{
	check_offers(200, 20 * NSEC_PER_MSEC, 20 * NSEC_PER_MSEC);
	check_offers(200, 50 * NSEC_PER_MSEC, 20 * NSEC_PER_MSEC);
	check_offers(200, 100 * NSEC_PER_MSEC, 2 * NSEC_PER_MSEC);
}

static void test_long_datagrams_get_a_slow_rate(void)
{
	struct offer o = { .bytes = 65000, .size = 65000, .percent = 200 };

	check_offer(MBIT, &o, RULE, METER_OUT);
	check_offer(MBIT, &o, METER_GUEST, METER_IN);
}

/* move_ready() - Those whose turn it is move all that they may, and wait */
static void move_ready(uint64_t *moved)
{
	struct flow *flow;
	unsigned sides;

	while ((flow = ready_take(&t.ft, &sides))) {
		unsigned from = sides - 1;
		uint32_t may;

		while ((may = meter_allow(&t.ft, flow, from, 1 << 20, now))) {
			meter_move(&t.ft, flow, from, may, now);
			watch_moved(may);
			*moved += may;
		}
		meter_wait(&t.ft, flow, from, now);
	}
}

static void check_streams(uint64_t rate, uint32_t rule, enum meter_dir dir,
			  unsigned count)
{
	struct test_random random = { .state = rate };
	uint64_t end, moved = 0;

	setup(rate, rule, dir);
	for (unsigned i = 0; i < count; i++)
		ready_add(&t.ft, flows[i], from_of(dir));
	watch_start(rate, 0);
	move_ready(&moved);
	watch.total = 0; /* what was saved */
	for (end = now + NSEC_PER_SEC; now < end;) {
		/* As late as a processor that has more to do */
		now = t.ft.meters->next_at +
		      test_below(&random, 20 * NSEC_PER_MSEC);
		meters_wake(&t.ft, now);
		move_ready(&moved);
	}
	watch_end(NSEC_PER_SEC + now - end, 0);
	table_teardown(&t);
}

static void test_streams_get_their_rate(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rates) * 4; i++) {
		check_streams(rates[i / 4], RULE, i % 2, i / 2 % 2 ? 1 : FLOWS);
		check_streams(rates[i / 4], METER_GUEST, i % 2, 1);
	}
}

static void send_burst(void)
{
	watch_moved(
		meter_datagrams(&t.ft, flows[0], INISIDE, 10 * MBIT, 100, now));
}

/* check_both_at_once() - A window that was promised, and a burst of datagrams */
static void check_both_at_once(bool burst_first)
{
	uint32_t promised;

	setup(10 * MBIT, RULE, METER_OUT);
	promised = meter_allow(&t.ft, flows[1], INISIDE, UINT32_MAX, now);
	CHECK(promised >= 10 * MBIT / 20);
	meter_take(&t.ft, flows[1], INISIDE, promised);
	now += NSEC_PER_SEC;
	watch_start(10 * MBIT, 0);
	if (burst_first)
		send_burst();
	meter_count(&t.ft, flows[1], INISIDE, promised, now);
	watch_moved(promised);
	if (!burst_first)
		send_burst();
	CHECK(watch.total >= 10 * MBIT / 10 - 100);
	table_teardown(&t);
}

static void test_both_at_once_are_no_more_than_100_ms_worth(void)
{
	check_both_at_once(false);
	check_both_at_once(true);
}

static void test_promises_that_nobody_uses_leave_what_is_there(void)
{
	setup(10 * MBIT, RULE, METER_OUT);
	for (unsigned i = 1; i < FLOWS; i++)
		meter_take(&t.ft, flows[i], INISIDE, 10 * MBIT / 20);
	now += NSEC_PER_SEC;
	watch_start(10 * MBIT, 0);
	send_burst();
	CHECK(watch.total >= 10 * MBIT / 20 - 100);
	table_teardown(&t);
}

static void test_promises_end_with_their_flows(void)
{
	setup(10 * MBIT, RULE, METER_OUT);
	meter_take(&t.ft, flows[1], INISIDE, 10 * MBIT / 20);
	for (unsigned i = 0; i < FLOWS; i++)
		meters_leave(&t.ft, flows[i]);
	meters_find(&t.ft, flows[0]);
	meters_enter(&t.ft, flows[0]);
	now += NSEC_PER_SEC;
	watch_start(10 * MBIT, 0);
	send_burst();
	CHECK(watch.total >= 10 * MBIT / 10 - 100);
	table_teardown(&t);
}

/* Whoever floods with datagrams leaves half to those who wait */
static void test_datagrams_and_streams_share_a_rate(void)
{
	uint64_t streams = 0, end;

	setup(10 * MBIT, METER_GUEST, METER_IN);
	watch_start(10 * MBIT, 0);
	ready_add(&t.ft, flows[1], TGTSIDE);
	for (end = now + 4 * NSEC_PER_SEC; now < end; now += NSEC_PER_MSEC) {
		meters_wake(&t.ft, now);
		move_ready(&streams);
		watch_moved(meter_datagrams(&t.ft, flows[0], TGTSIDE,
					    10 * MBIT / 500, 100, now));
	}
	CHECK(streams >= watch.total * 2 / 5);
	CHECK(streams <= watch.total * 3 / 5);
	watch_end(4 * NSEC_PER_SEC, 0);
	table_teardown(&t);
}

int main(void)
{
	RUN(test_datagrams_get_their_rate);
	RUN(test_a_little_more_than_the_rate_fills_it);
	RUN(test_bursts_fill_the_rate);
	RUN(test_long_datagrams_get_a_slow_rate);
	RUN(test_streams_get_their_rate);
	RUN(test_both_at_once_are_no_more_than_100_ms_worth);
	RUN(test_promises_that_nobody_uses_leave_what_is_there);
	RUN(test_promises_end_with_their_flows);
	RUN(test_datagrams_and_streams_share_a_rate);
	return 0;
}
