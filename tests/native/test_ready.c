/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ready list: everybody in turn, once, and nobody who is closed */

#include "base/budget.h"
#include "table.h"
#include "table/ready.h"
#include "test.h"

/* add() - A flow that no other number gives */
static struct flow *add(struct table *t, uint32_t number)
{
	struct flowside ini = table_side(number), tgt = table_side(number);

	tgt.oport = (uint16_t)number;
	return table_open(t, &ini, &tgt, 0);
}

static void expect(struct table *t, const struct flow *flow, unsigned sides)
{
	unsigned got = 0;

	CHECK(ready_take(&t->ft, &got) == flow);
	CHECK_EQ(got, sides);
	ready_check(&t->ft);
}

static void test_flows_are_served_in_the_order_they_came(void)
{
	struct table t;
	struct flow *a, *b;

	table_setup(&t, 16);
	a = add(&t, 1);
	b = add(&t, 2);
	ready_add(&t.ft, a, TGTSIDE);
	ready_add(&t.ft, b, INISIDE);
	ready_add(&t.ft, a, INISIDE); /* does not push in again */
	CHECK_EQ(t.ft.ready.count, 2);
	expect(&t, a, 3);
	ready_add(&t.ft, a, TGTSIDE); /* to the end of the line */
	expect(&t, b, 1);
	expect(&t, a, 2);
	expect(&t, NULL, 0);
	table_teardown(&t);
}

static void test_a_closed_flow_leaves_from_anywhere(void)
{
	struct table t;
	struct flow *flow[3];

	for (unsigned closed = 0; closed < 3; closed++) {
		table_setup(&t, 16);
		for (unsigned i = 0; i < 3; i++) {
			flow[i] = add(&t, i + 1);
			ready_add(&t.ft, flow[i], TGTSIDE);
		}
		flow_mark_closed(&t.ft, flow[closed], WHY_IDLE, 0, 0);
		ready_check(&t.ft);
		for (unsigned i = 0; i < 3; i++)
			if (i != closed)
				expect(&t, flow[i], 2);
		expect(&t, NULL, 0);
		table_teardown(&t);
	}
}

/* served() - How many of @n sources are served that each do @price of work */
static unsigned served(unsigned n, uint64_t price)
{
	struct budget b = { 0 };
	unsigned done = 0;

	budget_open(&b, WORK_ROUND, n);
	while (done < n && budget_next(&b)) {
		do
			budget_spend(&b, WORK_CALL);
		while (!budget_is_spent(&b) && b.turn < (done + 1) * price);
		done++;
	}
	CHECK(b.turn <= WORK_ROUND + WORK_SHARE);
	return done;
}

static void test_nobody_takes_more_than_a_share(void)
{
	/* However much each wants, all are served in so many rounds */
	CHECK_EQ(served(1, UINT64_MAX / 2), 1);
	CHECK_EQ(served(10, UINT64_MAX / 2 / 10), 10 / WORK_ROUNDS);
	/* More than a round has room for: the rest waits for the next one */
	CHECK_EQ(served(1000, UINT64_MAX / 2 / 1000),
		 WORK_ROUND / WORK_SHARE_MIN);
	/* Who wants little leaves the rest to others */
	CHECK_EQ(served(100, WORK_CALL), 100);
}

int main(void)
{
	RUN(test_flows_are_served_in_the_order_they_came);
	RUN(test_a_closed_flow_leaves_from_anywhere);
	RUN(test_nobody_takes_more_than_a_share);
	return 0;
}
