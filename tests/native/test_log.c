/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log ring, and the names that Python makes of numbers */

#include <ctype.h>
#include <string.h>

#include "table.h"

static bool is_lower(const char *s)
{
	for (; *s; s++)
		if (isupper((unsigned char)*s))
			return false;
	return true;
}

static void test_every_number_has_a_name(void)
{
	for (int i = 0; i < CNT_NUM; i++) {
		CHECK(counter_names[i][0] && is_lower(counter_names[i]));
		CHECK(counter_meanings[i][0]);
	}
	for (int i = 0; i < LOG_NUM; i++) {
		CHECK(log_event_names[i][0] && is_lower(log_event_names[i]));
		CHECK(log_event_levels[i] <= 3);
		for (int a = 0; a < LOG_ARGS; a++)
			CHECK(log_event_fields[i][a]);
	}
	for (int i = 0; i < PIF_NUM; i++)
		CHECK(pif_names[i]);
	for (int i = 0; i < FLOW_NUM_STATES; i++)
		CHECK(flow_state_names[i]);
	for (int i = 0; i < FLOW_NUM_TYPES; i++)
		CHECK(flow_type_names[i]);
	for (int i = 0; i < WHY_NUM; i++)
		CHECK(flow_why_names[i]);
	for (int i = 0; i < VERDICT_NUM; i++)
		CHECK(verdict_action_names[i]);
	CHECK(!strcmp(counter_names[CNT_TAP_RX_FRAMES], "tap_rx_frames"));
	CHECK(!strcmp(log_event_names[LOG_FLOW_STATE], "flow_state"));
	CHECK(!strcmp(log_event_fields[LOG_FLOW_STATE][1], "to"));
}

static void test_level_decides_what_is_recorded(void)
{
	struct log_record r;
	struct table t;

	table_setup(&t, 1);
	flow_log(&t.log, 1, FLOW_STATE, NULL, 0, 1, 0, 0);
	t.log.level = 2;
	flow_log(&t.log, 2, TCP_FROM_TAP, NULL, 0, 0, 0, 0);
	flow_log(&t.log, 3, TCP_WINDOW, NULL, 1, -2, 3, INT64_MIN);
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.time, 3);
	CHECK_EQ(r.event, LOG_TCP_WINDOW);
	CHECK_EQ(r.flow_id, UINT64_MAX);
	CHECK_EQ(r.arg[1], -2);
	CHECK_EQ(r.arg[3], INT64_MIN);
	CHECK(!flow_log_get(&t.log, &r));
	table_teardown(&t);
}

static void test_record_outlives_its_flow(void)
{
	struct flowside side = table_side(5);
	struct log_record r;
	struct flow *flow;
	struct table t;
	uint64_t id;

	table_setup(&t, 4);
	flow = table_open(&t, &side, &side, 0);
	id = flow_id(&t.ft, flow);
	t.log.level = 1;
	flow_mark_closed(&t.ft, flow, WHY_TIMEOUT, 110, 9);
	flow_defer_scan(&t.ft, table_release, NULL, 10);
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_FLOW_CLOSED);
	CHECK_EQ(r.arg[0], WHY_TIMEOUT);
	CHECK_EQ(r.arg[1], 110);
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_FLOW_STATE);
	CHECK_EQ(r.arg[1], FLOW_FREE);
	CHECK_EQ(r.flow_id, id);
	CHECK_EQ(r.pif[TGTSIDE], PIF_HOST);
	CHECK(!memcmp(&r.side[INISIDE], &side, 36));
	table_teardown(&t);
}

static void test_full_ring_drops_the_newest_and_counts(void)
{
	struct log_record r;
	struct table t;

	table_setup(&t, 1);
	t.log.level = 3;
	t.log.head = t.log.tail = UINT32_MAX - 10; /* may wrap at any time */
	for (int i = 0; i < TABLE_LOG + 3; i++)
		flow_log(&t.log, (uint64_t)i, SOCK_ERROR, NULL, i, 0, 0, 0);
	CHECK_EQ(t.cnt.n[CNT_LOG_LOST], 3);
	for (int i = 0; i < TABLE_LOG; i++) {
		CHECK(flow_log_get(&t.log, &r));
		CHECK_EQ(r.arg[0], i);
	}
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_EVENTS_LOST);
	CHECK_EQ(r.arg[0], 3);
	CHECK_EQ(r.time, TABLE_LOG + 2);
	CHECK(!flow_log_get(&t.log, &r));
	table_teardown(&t);
}

static void test_the_loss_is_told_where_events_are_missing(void)
{
	struct log_record r;
	struct table t;

	table_setup(&t, 1);
	t.log.level = 3;
	for (int i = 0; i < TABLE_LOG + 2; i++)
		flow_log(&t.log, (uint64_t)i, SOCK_ERROR, NULL, i, 0, 0, 0);
	CHECK(flow_log_get(&t.log, &r)); /* no room yet for both */
	flow_log(&t.log, 90, SOCK_ERROR, NULL, 90, 0, 0, 0);
	CHECK(flow_log_get(&t.log, &r));
	flow_log(&t.log, 91, SOCK_ERROR, NULL, 91, 0, 0, 0);
	CHECK_EQ(t.cnt.n[CNT_LOG_LOST], 3);
	for (int i = 2; i < TABLE_LOG; i++)
		CHECK(flow_log_get(&t.log, &r));
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_EVENTS_LOST);
	CHECK_EQ(r.arg[0], 3);
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.arg[0], 91);
	CHECK(!flow_log_get(&t.log, &r));
	table_teardown(&t);
}

int main(void)
{
	RUN(test_every_number_has_a_name);
	RUN(test_level_decides_what_is_recorded);
	RUN(test_record_outlives_its_flow);
	RUN(test_the_loss_is_told_where_events_are_missing);
	RUN(test_full_ring_drops_the_newest_and_counts);
	return 0;
}
