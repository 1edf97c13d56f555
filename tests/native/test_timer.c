/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The timing wheel against a table of deadlines that is searched in full */

#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/macros.h"
#include "table/timer.h"
#include "test.h"

#define FLOWS 200

static struct flow flows[FLOWS];

static void setup(struct timers *t, uint64_t now)
{
	memset(flows, 0, sizeof(flows));
	for (int i = 0; i < FLOWS; i++)
		flows[i].rw.state = FLOW_ACTIVE;
	t->flows = flows;
	timers_init(t, -1, now);
}

/* due() - When the wheel may fire: rounded up to a tick */
static uint64_t due(uint64_t deadline)
{
	return (deadline + TIMER_TICK - 1) / TIMER_TICK * TIMER_TICK;
}

static void test_fires_at_its_tick_and_once(void)
{
	struct timers t;

	setup(&t, 5 * NSEC_PER_SEC);
	timer_set(&t, &flows[3], 6 * NSEC_PER_SEC + 1);
	CHECK_EQ(timer_next(&t) <= 6 * NSEC_PER_SEC + TIMER_TICK, true);
	CHECK(!timer_expire(&t, 6 * NSEC_PER_SEC));
	CHECK(timer_expire(&t, 6 * NSEC_PER_SEC + TIMER_TICK) == &flows[3]);
	CHECK_EQ(flows[3].f.timer_at, 0);
	CHECK(!timer_expire(&t, 100 * NSEC_PER_SEC));
	CHECK_EQ(timer_next(&t), UINT64_MAX);
	timers_check(&t, FLOWS);
}

static void test_past_deadline_fires_at_once(void)
{
	struct timers t;

	setup(&t, 5 * NSEC_PER_SEC);
	timer_set(&t, &flows[1], 1);
	timer_set(&t, &flows[2], 5 * NSEC_PER_SEC);
	CHECK(timer_next(&t) <= 5 * NSEC_PER_SEC);
	CHECK(timer_expire(&t, 5 * NSEC_PER_SEC));
	CHECK(timer_expire(&t, 5 * NSEC_PER_SEC));
	CHECK(!timer_expire(&t, 5 * NSEC_PER_SEC));
}

static void test_a_due_flow_can_be_moved_and_cancelled(void)
{
	struct timers t;

	setup(&t, 0);
	for (int i = 0; i < 3; i++)
		timer_set(&t, &flows[i], NSEC_PER_SEC);
	CHECK(timer_expire(&t, 2 * NSEC_PER_SEC));
	for (int i = 0; i < 3; i++)
		timer_set(&t, &flows[i], i ? 3 * NSEC_PER_SEC : 0);
	CHECK(!timer_expire(&t, 2 * NSEC_PER_SEC));
	CHECK_EQ(t.queued, 2);
	timers_check(&t, FLOWS);
}

static void test_moving_later_leaves_the_slot_alone(void)
{
	struct timers t;
	uint32_t slot;

	setup(&t, 0);
	timer_set(&t, &flows[0], 10 * NSEC_PER_MSEC);
	slot = flows[0].f.timer_slot;
	timer_set(&t, &flows[0], 500 * NSEC_PER_MSEC);
	CHECK_EQ(flows[0].f.timer_slot, slot);
	CHECK(!timer_expire(&t, 499 * NSEC_PER_MSEC));
	CHECK(timer_expire(&t, 500 * NSEC_PER_MSEC) == &flows[0]);
}

static void test_deadline_beyond_the_wheel(void)
{
	uint64_t year = 365ULL * 24 * 3600 * NSEC_PER_SEC;
	struct timers t;

	setup(&t, 123456789);
	timer_set(&t, &flows[0], 3 * year);
	for (uint64_t now = 0; now < 3 * year; now += year / 100)
		CHECK(!timer_expire(&t, now));
	CHECK(timer_expire(&t, 3 * year) == &flows[0]);
}

static void test_idle_time_is_jumped_over(void)
{
	uint64_t year = 365ULL * 24 * 3600 * NSEC_PER_SEC;
	struct timers t;

	setup(&t, 0);
	CHECK(!timer_expire(&t, 100 * year)); /* would not end otherwise */
	timer_set(&t, &flows[0], 100 * year + NSEC_PER_SEC);
	CHECK(timer_next(&t) > 100 * year);
	CHECK(timer_expire(&t, 100 * year + NSEC_PER_SEC) == &flows[0]);
}

static void test_timerfd_is_armed_for_the_earliest(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	uint64_t now = clock_now();
	struct itimerspec spec;
	struct timers t;

	CHECK(fd >= 0);
	setup(&t, now);
	t.fd = fd;
	timer_set(&t, &flows[0], now + 100 * NSEC_PER_SEC);
	timer_arm(&t, UINT64_MAX);
	timerfd_gettime(fd, &spec);
	CHECK(spec.it_value.tv_sec > 0 && spec.it_value.tv_sec <= 101);
	timer_arm(&t, now + 10 * NSEC_PER_SEC);
	timerfd_gettime(fd, &spec);
	CHECK(spec.it_value.tv_sec <= 10);
	timer_set(&t, &flows[0], now + 200 * NSEC_PER_SEC);
	timer_arm(&t, UINT64_MAX); /* not moved later, it would cost a call */
	timerfd_gettime(fd, &spec);
	CHECK(spec.it_value.tv_sec <= 10);
	timer_ack(&t);
	timer_arm(&t, UINT64_MAX);
	timerfd_gettime(fd, &spec);
	CHECK(spec.it_value.tv_sec > 10);
	close(fd);
}

/* random_deadline() - Mostly near, sometimes far, sometimes past */
static uint64_t random_deadline(struct test_random *r, uint64_t now)
{
	static const uint64_t spans[] = {
		NSEC_PER_MSEC / 2,    70 * NSEC_PER_MSEC,
		5 * NSEC_PER_SEC,     300 * NSEC_PER_SEC,
		20000 * NSEC_PER_SEC, 3000000 * NSEC_PER_SEC,
	};
	uint64_t span = spans[test_below(r, ARRAY_SIZE(spans))];

	if (!test_below(r, 10))
		return now > span ? now - span / 2 : 1;
	return now + test_random64(r) % span + 1;
}

/* expire_all() - Everything due comes out, nothing else does */
static void expire_all(struct timers *t, uint64_t *model, uint64_t now)
{
	struct flow *flow;

	while ((flow = timer_expire(t, now))) {
		uint64_t *deadline = &model[flow - flows];

		CHECK(*deadline && *deadline <= now);
		CHECK_EQ(flow->f.timer_at, 0);
		*deadline = 0;
	}
	for (int i = 0; i < FLOWS; i++)
		CHECK(!model[i] || due(model[i]) > now);
}

static uint64_t earliest(const uint64_t *model)
{
	uint64_t first = UINT64_MAX;

	for (int i = 0; i < FLOWS; i++)
		if (model[i])
			first = MIN(first, due(model[i]));
	return first;
}

static void test_random_operations_match_the_model(void)
{
	struct test_random r = { 42 };
	uint64_t model[FLOWS] = { 0 };
	uint64_t now = 987654321;
	struct timers t;

	setup(&t, now);
	for (int op = 0; op < 100000; op++) {
		uint32_t i = test_below(&r, FLOWS);
		uint64_t next;

		switch (test_below(&r, 4)) {
		case 0:
			model[i] = 0;
			timer_set(&t, &flows[i], 0);
			break;
		case 1:
		case 2:
			model[i] = random_deadline(&r, now);
			timer_set(&t, &flows[i], model[i]);
			break;
		default:
			next = timer_next(&t);
			CHECK(next <= earliest(model) || next <= now);
			if (test_below(&r, 2) && next != UINT64_MAX)
				now = MAX(now, next);
			else
				now += test_random64(&r) %
				       (test_below(&r, 100) ?
						50 * NSEC_PER_MSEC :
						90000 * NSEC_PER_SEC);
			expire_all(&t, model, now);
		}
		timers_check(&t, FLOWS);
	}
}

static void test_sleeping_until_next_is_never_late(void)
{
	struct test_random r = { 7 };
	uint64_t model[FLOWS] = { 0 };
	uint64_t now = 1;
	struct timers t;
	int wakes = 0;

	setup(&t, now);
	for (int i = 0; i < FLOWS; i++) {
		model[i] = random_deadline(&r, now);
		timer_set(&t, &flows[i], model[i]);
	}
	for (; t.queued; wakes++) {
		now = MAX(now, timer_next(&t));
		expire_all(&t, model, now);
	}
	/* At most: each flow, once on each level */
	CHECK(wakes <= FLOWS * TIMER_LEVELS);
}

int main(void)
{
	RUN(test_fires_at_its_tick_and_once);
	RUN(test_past_deadline_fires_at_once);
	RUN(test_a_due_flow_can_be_moved_and_cancelled);
	RUN(test_moving_later_leaves_the_slot_alone);
	RUN(test_deadline_beyond_the_wheel);
	RUN(test_idle_time_is_jumped_over);
	RUN(test_timerfd_is_armed_for_the_earliest);
	RUN(test_random_operations_match_the_model);
	RUN(test_sleeping_until_next_is_never_late);
	return 0;
}
