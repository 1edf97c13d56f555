/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flow table against a model that is a plain array: random operations,
 * every invariant checked after each
 */

#include <string.h>

#include "table.h"

#define MAX_FLOWS  128 /* small, so that it is often full */
#define OPERATIONS 100000

static struct table t;

/** struct model - What the table should hold, kept the simple way
 * @used:	Entry is ACTIVE
 * @closed:	Marked
 * @complete:	Side is to be found
 * @side:	Addresses
 * @generation:	Of the index
 */
static struct model {
	bool used;
	bool closed;
	bool complete[SIDES];
	struct flowside side[SIDES];
	uint32_t generation;
} model[MAX_FLOWS];

static uint32_t model_lowest(void)
{
	uint32_t i = 0;

	while (i < MAX_FLOWS && model[i].used)
		i++;
	return i;
}

static void random_open(struct test_random *r, uint32_t number, uint64_t now)
{
	struct flowside ini = table_side(2 * number);
	struct flowside tgt = table_side(2 * number + 1);
	bool complete = test_below(r, 2);
	uint32_t i = model_lowest();
	struct flow *flow;

	if (!complete)
		tgt.oaddr = (union inany){ 0 };
	flow = table_open(&t, &ini, &tgt, now);
	CHECK_EQ(!flow, i == MAX_FLOWS);
	if (!flow)
		return;
	CHECK_EQ(flow_index(&t.ft, flow), i);
	model[i] = (struct model){
		.used = true,
		.complete = { true, complete },
		.side = { ini, tgt },
		.generation = model[i].generation + 1,
	};
	CHECK_EQ(flow->f.generation, model[i].generation);
	if (test_below(r, 2))
		timer_set(&t.timers, flow,
			  now + test_random64(r) % NSEC_PER_SEC);
}

/* random_cancel() - Walk some of the steps, then think better of it */
static void random_cancel(struct test_random *r, uint64_t now)
{
	struct flowside side = table_side(0xffffff);
	struct verdict v = { .pif = PIF_HOST, .side = side };
	uint32_t steps = test_below(r, 4);
	struct flow *flow = flow_alloc(&t.ft, now);

	if (!flow)
		return;
	model[flow_index(&t.ft, flow)].generation++;
	if (steps > 0)
		flow_initiate(&t.ft, flow, PIF_TAP, &side, now);
	if (steps > 1)
		flow_target(&t.ft, flow, &v, now);
	if (steps > 2)
		flow_set_type(&t.ft, flow, FLOW_UDP, now);
	flow_table_check(&t.ft);
	flow_alloc_cancel(&t.ft, flow, now);
}

static void random_close(struct test_random *r, uint64_t now)
{
	uint32_t i = test_below(r, MAX_FLOWS);

	if (!model[i].used || model[i].closed)
		return;
	flow_mark_closed(&t.ft, &t.ft.flows[i], WHY_DONE, 0, now);
	model[i].closed = true;
}

static bool release_random(void *arg, struct flow *flow)
{
	struct model *m = &model[flow_index(&t.ft, flow)];

	CHECK(m->used && m->closed);
	if (!test_below(arg, 8))
		return false;
	m->used = false;
	m->closed = false;
	return true;
}

static void random_lookup(struct test_random *r)
{
	static const uint8_t pifs[SIDES] = { PIF_TAP, PIF_HOST };
	uint32_t i = test_below(r, MAX_FLOWS);
	struct model *m = &model[i];

	for (unsigned s = 0; s < SIDES; s++) {
		flow_sidx_t sidx =
			flow_lookup(&t.ft, IPPROTO_TCP, pifs[s], &m->side[s]);

		if (m->used && !m->closed && m->complete[s])
			CHECK(sidx.flow == i && sidx.side == s);
		else
			CHECK(flow_sidx_is_none(sidx));
	}
}

static void see_flow(void *arg, const struct flow *flow)
{
	bool *seen = arg;
	uint32_t i = flow_index(&t.ft, flow);

	CHECK(!seen[i] && model[i].used && !model[i].closed);
	seen[i] = true;
}

static void random_snapshot(struct test_random *r)
{
	bool seen[MAX_FLOWS] = { false };
	uint32_t cursor = 0;

	do {
		flow_snapshot(&t.ft, &cursor, see_flow, seen,
			      1 + test_below(r, 20));
	} while (cursor);
	for (uint32_t i = 0; i < MAX_FLOWS; i++)
		CHECK_EQ(seen[i], model[i].used && !model[i].closed);
}

static void test_random_operations_match_the_model(void)
{
	struct test_random r = { 20261120 };
	uint64_t now = 1;

	table_setup(&t, MAX_FLOWS);
	memset(model, 0, sizeof(model));
	for (uint32_t op = 0; op < OPERATIONS; op++) {
		/* Tides: from nearly empty to full, and back */
		uint32_t flood = op / 1000 % 2 ? 5 : 3;
		uint32_t choice = test_below(&r, 20);

		now += test_below(&r, 1000);
		if (choice < flood)
			random_open(&r, op, now);
		else if (choice < 8)
			random_close(&r, now);
		else if (choice < 9)
			random_cancel(&r, now);
		else if (choice < 10)
			flow_defer_scan(&t.ft, release_random, &r, now);
		else if (choice < 19)
			random_lookup(&r);
		else
			random_snapshot(&r);
		if (choice < 10)
			flow_table_check(&t.ft);
	}
	CHECK(t.cnt.n[CNT_DROP_TABLE_FULL] > 100);
	CHECK(t.cnt.n[CNT_FLOWS_CLOSED] > 10000);
	table_teardown(&t);
}

int main(void)
{
	RUN(test_random_operations_match_the_model);
	return 0;
}
