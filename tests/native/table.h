/* SPDX-License-Identifier: GPL-2.0-or-later */
/* table.h - A flow table with all it needs, for tests and benchmarks */
#ifndef PASSTPY_TESTS_TABLE_H
#define PASSTPY_TESTS_TABLE_H

#include "table/flow_table.h"
#include "test.h"

#define TABLE_LOG 64 /* records */

/** struct table - What a datapath would hold around the flow table */
struct table {
	struct flow_table ft;
	struct flow_log log;
	struct timers timers;
	struct counters cnt;
};

static inline void table_setup(struct table *t, uint32_t max)
{
	struct siphash_key key = { { 0x0706050403020100, 0x0f0e0d0c0b0a0908 } };

	*t = (struct table){ 0 };
	timers_init(&t->timers, -1, 0);
	CHECK_EQ(flow_log_init(&t->log, TABLE_LOG, &t->cnt), 0);
	CHECK_EQ(flow_table_init(&t->ft, max, &key, &t->log, &t->cnt,
				 &t->timers),
		 0);
}

static inline void table_teardown(struct table *t)
{
	flow_table_free(&t->ft);
	flow_log_free(&t->log);
}

/* table_side() - Addresses that no other number gives */
static inline struct flowside table_side(uint32_t number)
{
	struct flowside side = { .eport = 40000, .oport = 443 };

	inany_from_v4(&side.eaddr, (struct in_addr){ htonl(0xc0000201) });
	inany_from_v4(&side.oaddr,
		      (struct in_addr){ htonl(0x0a000000 + number) });
	return side;
}

/* table_open() - A TCP flow from the tap; NULL when the table is full */
static inline struct flow *table_open(struct table *t,
				      const struct flowside *ini,
				      const struct flowside *tgt, uint64_t now)
{
	struct verdict v = { .action = VERDICT_FORWARD,
			     .pif = PIF_HOST,
			     .side = *tgt,
			     .rule = 7 };
	struct flow *flow = flow_alloc(&t->ft, now);

	if (!flow)
		return NULL;
	flow_initiate(&t->ft, flow, PIF_TAP, ini, now);
	flow_target(&t->ft, flow, &v, now);
	flow_set_type(&t->ft, flow, FLOW_TCP, now);
	flow_activate(&t->ft, flow, now);
	return flow;
}

static inline bool table_release(void *arg, struct flow *flow)
{
	(void)arg;
	(void)flow;
	return true;
}

#endif /* PASSTPY_TESTS_TABLE_H */
