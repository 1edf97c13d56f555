/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flow table: the facts of each step, and a table of many flows */

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "table.h"
#include "table/flow_cluster.h"

#define MAX_FLOWS 200

static struct table t;

/* open_n() - The n-th flow: both sides complete, unlike any other's */
static struct flow *open_n(uint32_t n, uint64_t now)
{
	struct flowside ini = table_side(2 * n), tgt = table_side(2 * n + 1);

	return table_open(&t, &ini, &tgt, now);
}

static void close_flow(uint32_t i, uint64_t now)
{
	flow_mark_closed(&t.ft, &t.ft.flows[i], WHY_DONE, 0, now);
}

static void scan(uint64_t now)
{
	flow_defer_scan(&t.ft, table_release, NULL, now);
	flow_table_check(&t.ft);
}

static uint32_t run_count(void)
{
	uint32_t n = 0;

	for (uint32_t i = t.ft.first_free; i < t.ft.top;
	     i = flow_run_at(&t.ft, i)->next)
		n++;
	return n;
}

static void test_steps_fill_and_log_the_entry(void)
{
	static const uint8_t states[] = { FLOW_NEW, FLOW_INI, FLOW_TGT,
					  FLOW_TYPED, FLOW_ACTIVE };
	struct log_record r;
	struct flow *flow;

	table_setup(&t, MAX_FLOWS);
	t.log.level = 1;
	flow = open_n(1, 77);
	CHECK_EQ(flow->f.state, FLOW_ACTIVE);
	CHECK_EQ(flow->f.type, FLOW_TCP);
	CHECK_EQ(flow->f.rule, 7);
	CHECK_EQ(flow->f.created, 77);
	CHECK_EQ(flow->f.fd[INISIDE], -1);
	CHECK_EQ(flow->f.fd[TGTSIDE], -1);
	CHECK_EQ(flow->f.generation, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
		CHECK(flow_log_get(&t.log, &r));
		CHECK_EQ(r.event, LOG_FLOW_STATE);
		CHECK_EQ(r.arg[0], states[i] - 1);
		CHECK_EQ(r.arg[1], states[i]);
		CHECK_EQ(r.state, states[i]);
		CHECK_EQ(r.flow_id, flow_id(&t.ft, flow));
	}
	CHECK(flow_log_get(&t.log, &r));
	CHECK_EQ(r.event, LOG_FLOW_OPENED);
	CHECK(!flow_log_get(&t.log, &r));
	CHECK_EQ(r.side[TGTSIDE].eport, 40000);
	CHECK_EQ(t.cnt.n[CNT_FLOWS_OPENED], 1);
	table_teardown(&t);
}

static void test_both_sides_are_found_until_closed(void)
{
	struct flowside ini = table_side(1), tgt = table_side(2);
	struct flow *flow;
	flow_sidx_t sidx;

	table_setup(&t, MAX_FLOWS);
	flow = table_open(&t, &ini, &tgt, 0);
	sidx = flow_lookup(&t.ft, IPPROTO_TCP, PIF_TAP, &ini);
	CHECK(flow_at(&t.ft, sidx) == flow && sidx.side == INISIDE);
	sidx = flow_lookup(&t.ft, IPPROTO_TCP, PIF_HOST, &tgt);
	CHECK(flow_at(&t.ft, sidx) == flow && sidx.side == TGTSIDE);

	/* Each part of the key counts */
	CHECK(flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_UDP, PIF_TAP, &ini)));
	CHECK(flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_TCP, PIF_HOST, &ini)));
	ini.eport++;
	CHECK(flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_TCP, PIF_TAP, &ini)));
	ini.eport--;

	flow_mark_closed(&t.ft, flow, WHY_RST_GUEST, 0, 0);
	CHECK(flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_TCP, PIF_TAP, &ini)));
	CHECK(flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_TCP, PIF_HOST, &tgt)));
	CHECK(!flow_at(&t.ft, sidx));
	CHECK(!flow_at(&t.ft, FLOW_SIDX_NONE));
	table_teardown(&t);
}

static void test_incomplete_side_is_not_hashed(void)
{
	struct flowside ini = table_side(1), tgt = table_side(2);
	struct flow *flow;

	table_setup(&t, MAX_FLOWS);
	tgt.oaddr = (union inany){ 0 };
	tgt.oport = 0;
	flow = table_open(&t, &ini, &tgt, 0);
	CHECK(flow->f.hashed[INISIDE] && !flow->f.hashed[TGTSIDE]);

	/* Known later: it may join the hash later, too */
	flow_set_our_addr(flow, TGTSIDE, &ini.oaddr, 5555);
	flow_hash_insert(&t.ft, flow_sidx(&t.ft, flow, TGTSIDE));
	flow_table_check(&t.ft);
	tgt.oaddr = ini.oaddr;
	tgt.oport = 5555;
	CHECK(!flow_sidx_is_none(
		flow_lookup(&t.ft, IPPROTO_TCP, PIF_HOST, &tgt)));
	table_teardown(&t);
}

static void test_allocation_takes_the_lowest_free_entry(void)
{
	table_setup(&t, MAX_FLOWS);
	for (uint32_t i = 0; i < 10; i++)
		CHECK_EQ(flow_index(&t.ft, open_n(i, 0)), i);
	close_flow(7, 0);
	close_flow(2, 0);
	close_flow(3, 0);
	scan(0);
	CHECK_EQ(run_count(), 2);
	CHECK_EQ(flow_index(&t.ft, open_n(20, 0)), 2);
	CHECK_EQ(flow_index(&t.ft, open_n(21, 0)), 3);
	CHECK_EQ(flow_index(&t.ft, open_n(22, 0)), 7);
	CHECK_EQ(flow_index(&t.ft, open_n(23, 0)), 10);
	table_teardown(&t);
}

static void test_full_table_refuses_and_counts(void)
{
	table_setup(&t, 3);
	for (uint32_t i = 0; i < 3; i++)
		CHECK(open_n(i, 0));
	CHECK(!open_n(3, 0));
	CHECK_EQ(t.cnt.n[CNT_DROP_TABLE_FULL], 1);
	CHECK_EQ(t.ft.first_free, t.ft.max);
	close_flow(1, 0);
	CHECK(flow_defer_due(&t.ft, 0)); /* full: at once */
	scan(0);
	CHECK(open_n(3, 0));
	CHECK(!open_n(4, 0));
	table_teardown(&t);
}

static void test_cancel_puts_the_entry_back(void)
{
	struct flow *flow;

	table_setup(&t, MAX_FLOWS);
	for (uint32_t i = 0; i < 4; i++)
		open_n(i, 0);
	close_flow(1, 0);
	close_flow(2, 0);
	scan(0);
	for (int i = 0; i < 3; i++) {
		flow = flow_alloc(&t.ft, 0);
		CHECK_EQ(flow_index(&t.ft, flow), 1);
		flow_alloc_cancel(&t.ft, flow, 0);
		flow_table_check(&t.ft);
	}
	CHECK_EQ(run_count(), 1); /* merged again each time */
	close_flow(3, 0);
	scan(0); /* merges 1, 2, 3 into what lies above */
	CHECK_EQ(run_count(), 0);
	CHECK_EQ(t.ft.top, 1);
	table_teardown(&t);
}

static void test_generation_tells_old_from_new(void)
{
	uint64_t id;

	table_setup(&t, MAX_FLOWS);
	id = flow_id(&t.ft, open_n(0, 0));
	close_flow(0, 0);
	scan(0);
	CHECK_EQ(flow_id(&t.ft, open_n(0, 0)), id + (1ULL << 32));
	close_flow(0, 0);
	scan(0);
	t.ft.flows[0].rw.generation = UINT32_MAX;
	CHECK_EQ(flow_id(&t.ft, open_n(0, 0)) >> 32, 1);
	table_teardown(&t);
}

static void test_scan_is_due_by_number_or_age(void)
{
	table_setup(&t, 1000);
	for (uint32_t i = 0; i < FLOW_DEFER_COUNT + 1; i++)
		open_n(i, 0);
	CHECK(!flow_defer_due(&t.ft, NSEC_PER_SEC));
	close_flow(0, 1000);
	CHECK(!flow_defer_due(&t.ft, 1000));
	CHECK(!flow_defer_due(&t.ft, 1000 + FLOW_DEFER_AGE - 1));
	CHECK(flow_defer_due(&t.ft, 1000 + FLOW_DEFER_AGE));
	for (uint32_t i = 1; i < FLOW_DEFER_COUNT; i++)
		close_flow(i, 1000);
	CHECK(flow_defer_due(&t.ft, 1000));
	scan(1000);
	CHECK_EQ(t.ft.active, 1);
	CHECK_EQ(t.cnt.n[CNT_FLOWS_CLOSED], FLOW_DEFER_COUNT);
	CHECK(!flow_defer_due(&t.ft, NSEC_PER_SEC));
	table_teardown(&t);
}

static bool release_odd(void *arg, struct flow *flow)
{
	(void)arg;
	return flow_index(&t.ft, flow) % 2;
}

static void test_handler_may_keep_a_closed_flow(void)
{
	table_setup(&t, MAX_FLOWS);
	for (uint32_t i = 0; i < 10; i++)
		open_n(i, 0);
	for (uint32_t i = 0; i < 10; i++)
		close_flow(i, 0);
	flow_defer_scan(&t.ft, release_odd, NULL, 5);
	flow_table_check(&t.ft);
	CHECK_EQ(t.ft.closing, 5);
	CHECK_EQ(t.ft.closing_since, 5);
	scan(6);
	CHECK_EQ(t.ft.active, 0);
	CHECK_EQ(t.ft.top, 0);
	table_teardown(&t);
}

static void test_cancel_takes_the_timer_out(void)
{
	struct flowside side = table_side(1);
	struct verdict v = { .pif = PIF_HOST, .side = side };
	struct flow *flow;

	table_setup(&t, MAX_FLOWS);
	flow = flow_alloc(&t.ft, 0);
	flow_initiate(&t.ft, flow, PIF_TAP, &side, 0);
	flow_target(&t.ft, flow, &v, 0);
	flow_set_type(&t.ft, flow, FLOW_UDP, 0);
	timer_set(&t.timers, flow, NSEC_PER_SEC);
	flow_alloc_cancel(&t.ft, flow, 0);
	CHECK_EQ(t.timers.queued, 0);
	flow_table_check(&t.ft);
	table_teardown(&t);
}

static void test_bad_sizes_are_refused(void)
{
	struct siphash_key key = { { 0 } };

	table_setup(&t, 1);
	table_teardown(&t);
	CHECK(flow_table_init(&t.ft, 0, &key, &t.log, &t.cnt, &t.timers) ==
	      -EINVAL);
	CHECK(flow_table_init(&t.ft, FLOW_TABLE_MAX + 1, &key, &t.log, &t.cnt,
			      &t.timers) == -EINVAL);
}

static void test_a_hundred_thousand_flows(void)
{
	const uint32_t flows = 100000;
	struct test_random r = { 9 };

	table_setup(&t, 131072);
	for (uint32_t i = 0; i < flows; i++)
		CHECK(open_n(i, 0));
	CHECK_EQ(t.ft.hash_used, 2 * flows);
	for (uint32_t i = 0; i < flows; i++) {
		struct flowside side = table_side(2 * i + 1);
		flow_sidx_t sidx =
			flow_lookup(&t.ft, IPPROTO_TCP, PIF_HOST, &side);

		CHECK(sidx.flow == i && sidx.side == TGTSIDE);
	}
	for (int round = 0; round < 100; round++) {
		for (int n = 0; n < 700; n++) {
			uint32_t i = test_below(&r, flows);

			if (flow_at(&t.ft, (flow_sidx_t){ .flow = i }))
				close_flow(i, 0);
		}
		flow_defer_scan(&t.ft, table_release, NULL, 0);
	}
	flow_table_check(&t.ft);
	for (uint32_t i = 0; i < flows; i++)
		if (flow_at(&t.ft, (flow_sidx_t){ .flow = i }))
			close_flow(i, 0);
	scan(0);
	CHECK_EQ(t.ft.top, 0);
	CHECK_EQ(t.ft.hash_used, 0);
	table_teardown(&t);
}

int main(void)
{
	RUN(test_steps_fill_and_log_the_entry);
	RUN(test_both_sides_are_found_until_closed);
	RUN(test_incomplete_side_is_not_hashed);
	RUN(test_allocation_takes_the_lowest_free_entry);
	RUN(test_full_table_refuses_and_counts);
	RUN(test_cancel_puts_the_entry_back);
	RUN(test_generation_tells_old_from_new);
	RUN(test_scan_is_due_by_number_or_age);
	RUN(test_handler_may_keep_a_closed_flow);
	RUN(test_cancel_takes_the_timer_out);
	RUN(test_bad_sizes_are_refused);
	RUN(test_a_hundred_thousand_flows);
	return 0;
}
