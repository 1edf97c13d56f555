/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_border.c - Pages of flows: whole, bounded, and every flow once */

#include "table/border.h"

#include <string.h>

#include "table.h"

#define FLOWS 30000
#define PAGE  256

static struct table t;
static unsigned char page[PAGE * sizeof(struct border_flow)];

static struct border_flow record_at(unsigned i)
{
	struct border_flow r;

	memcpy(&r, page + i * sizeof(r), sizeof(r));
	return r;
}

static void test_record_holds_the_flow(void)
{
	struct flowside ini = table_side(1), tgt = table_side(2);
	struct border_flow r;
	struct flow *flow;
	uint32_t cursor = 0;

	table_setup(&t, 4);
	flow = table_open(&t, &ini, &tgt, 5);
	flow_set_listener(flow, 77);
	flow_set_rule(&t.ft, flow, 8, UINT32_MAX);
	flow_touch_tcp(flow, TGTSIDE, 3, 4, 0x18, 6);
	memset(page, 0xaa, sizeof(page));
	CHECK_EQ(border_flow_page(&t.ft, &cursor, page, PAGE), 1);
	CHECK_EQ(cursor, 0);
	CHECK_EQ(page[sizeof(r)], 0xaa);
	r = record_at(0);
	CHECK(r.flow_id == flow_id(&t.ft, flow));
	CHECK(r.created_ns == 5 && r.last_use_ns == 6);
	CHECK(!r.packets0 && !r.bytes0 && r.packets1 == 3 && r.bytes1 == 4);
	CHECK(r.rule == 8 && r.generation == UINT32_MAX && r.listener == 77);
	CHECK(!memcmp(&r.eaddr0, &ini.eaddr, 16) && r.eport0 == ini.eport);
	CHECK(!memcmp(&r.oaddr0, &ini.oaddr, 16) && r.oport0 == ini.oport);
	CHECK(!memcmp(&r.eaddr1, &tgt.eaddr, 16) && r.eport1 == tgt.eport);
	CHECK(!memcmp(&r.oaddr1, &tgt.oaddr, 16) && r.oport1 == tgt.oport);
	CHECK(r.proto == IPPROTO_TCP && r.type == FLOW_TCP);
	CHECK(r.state == FLOW_ACTIVE);
	CHECK(r.pif0 == PIF_TAP && r.pif1 == PIF_HOST);
	CHECK(!r.tcp_flags0 && r.tcp_flags1 == 0x18);
	table_teardown(&t);
}

static void test_a_listener_is_none_unless_set(void)
{
	struct flowside ini = table_side(1), tgt = table_side(2);
	uint32_t cursor = 0;

	table_setup(&t, 4);
	CHECK(table_open(&t, &ini, &tgt, 0));
	CHECK_EQ(border_flow_page(&t.ft, &cursor, page, PAGE), 1);
	CHECK_EQ(record_at(0).listener, -1);
	table_teardown(&t);
}

/* Every third flow is closed between the pages, ahead of the cursor and behind
 * it: what lives through the listing is in it once, whatever else comes along */
static void test_a_large_table_is_listed_in_pages(void)
{
	static uint8_t seen[FLOWS];
	static struct flow *flows[FLOWS];
	uint32_t cursor = 0;
	unsigned pages = 0;

	memset(seen, 0, sizeof(seen));
	table_setup(&t, FLOWS);
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct flowside ini = table_side(i), tgt = table_side(i);

		tgt.eport = 1;
		flows[i] = table_open(&t, &ini, &tgt, 0);
		CHECK(flows[i]);
	}
	do {
		unsigned n = border_flow_page(&t.ft, &cursor, page, PAGE);

		CHECK(n <= PAGE);
		CHECK(n == PAGE || !cursor);
		for (unsigned i = 0; i < n; i++) {
			uint32_t number = (uint32_t)record_at(i).flow_id;

			CHECK(number < FLOWS && !seen[number]++);
		}
		for (unsigned i = 0; i < PAGE / 2; i++) {
			uint32_t number = (pages * 977 + i * 3) % FLOWS;

			if (number % 3 || flows[number]->f.closed ||
			    flows[number]->f.state != FLOW_ACTIVE)
				continue;
			flow_mark_closed(&t.ft, flows[number], WHY_ASKED, 0, 0);
		}
		flow_defer_scan(&t.ft, table_release, NULL, 0);
		pages++;
	} while (cursor);
	CHECK(pages >= FLOWS / 3 * 2 / PAGE && pages <= FLOWS / PAGE + 1);
	for (uint32_t i = 0; i < FLOWS; i++)
		CHECK(seen[i] || i % 3 == 0);
	table_teardown(&t);
}

static void test_an_id_finds_its_flow_only(void)
{
	struct flowside ini = table_side(1), tgt = table_side(2);
	struct flow *flow;
	uint64_t id;

	table_setup(&t, 4);
	flow = table_open(&t, &ini, &tgt, 0);
	id = flow_id(&t.ft, flow);
	CHECK(flow_by_id(&t.ft, id) == flow);
	CHECK(!flow_by_id(&t.ft, id + 1));
	CHECK(!flow_by_id(&t.ft, id + (1ULL << 32)));
	CHECK(!flow_by_id(&t.ft, id | 1ULL << 31));
	CHECK(!flow_by_id(&t.ft, UINT64_MAX));
	flow_mark_closed(&t.ft, flow, WHY_ASKED, 0, 0);
	CHECK(!flow_by_id(&t.ft, id));
	flow_defer_scan(&t.ft, table_release, NULL, 0);
	CHECK(!flow_by_id(&t.ft, id));
	CHECK(table_open(&t, &ini, &tgt, 0) == flow);
	CHECK(!flow_by_id(&t.ft, id));
	table_teardown(&t);
}

int main(void)
{
	RUN(test_record_holds_the_flow);
	RUN(test_a_listener_is_none_unless_set);
	RUN(test_a_large_table_is_listed_in_pages);
	RUN(test_an_id_finds_its_flow_only);
	return 0;
}
