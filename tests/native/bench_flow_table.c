/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the flow table costs: a JSON list of measurements on standard output
 *
 * Each value is the best of a few rounds: the machine is shared, and whatever
 * else it does only ever adds.
 */

#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"
#include "frames.h"
#include "table.h"
#include "link/extract.h"

#define ROUNDS	  7
#define FLOWS_MAX 131072
#define SAMPLES	  (1 << 20) /* look-ups of one round */

static struct table t;
static bool first = true;

static void report(const char *name, double value, const char *unit)
{
	printf("%s\n  {\"name\": \"%s\", \"value\": %.2f, \"unit\": \"%s\"}",
	       first ? "[" : ",", name, value, unit);
	first = false;
}

static struct flow *open_n(uint32_t n)
{
	struct flowside ini = table_side(2 * n), tgt = table_side(2 * n + 1);

	return table_open(&t, &ini, &tgt, 1);
}

static void setup(uint32_t flows)
{
	table_setup(&t, FLOWS_MAX);
	for (uint32_t i = 0; i < flows; i++)
		CHECK(open_n(i));
}

/* best() - Lowest time of a few rounds, ns for each of @n operations */
static double best(void (*fn)(void *arg), void *arg, uint32_t n)
{
	uint64_t low = UINT64_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t start = clock_now();

		fn(arg);
		low = MIN(low, clock_now() - start);
	}
	return (double)low / n;
}

/** struct lookups - Keys in random order, and how many to look up */
struct lookups {
	struct flowside *keys;
	uint32_t n;
	uint32_t found;
};

static void look_up(void *arg)
{
	struct lookups *l = arg;

	for (uint32_t i = 0; i < l->n; i++)
		l->found += !flow_sidx_is_none(
			flow_lookup(&t.ft, IPPROTO_TCP, PIF_TAP, &l->keys[i]));
}

static void bench_lookup(uint32_t flows, const char *hit, const char *miss)
{
	struct test_random r = { 1 };
	struct lookups l = { .n = SAMPLES };

	l.keys = calloc(SAMPLES, sizeof(*l.keys));
	CHECK(l.keys);
	setup(flows);
	for (uint32_t i = 0; i < SAMPLES; i++)
		l.keys[i] = table_side(2 * test_below(&r, flows));
	report(hit, best(look_up, &l, SAMPLES), "ns");
	CHECK_EQ(l.found, ROUNDS * SAMPLES);
	for (uint32_t i = 0; i < SAMPLES; i++)
		l.keys[i].eport++;
	report(miss, best(look_up, &l, SAMPLES), "ns");
	free(l.keys);
	table_teardown(&t);
}

static void alloc_and_cancel(void *arg)
{
	const uint32_t *n = arg;

	for (uint32_t i = 0; i < *n; i++)
		flow_alloc_cancel(&t.ft, flow_alloc(&t.ft, 1), 1);
}

/* life() - Open and close as a busy daemon does, a scan for each 64 */
static void life(void *arg)
{
	const uint32_t *n = arg;

	for (uint32_t i = 0; i < *n; i++) {
		struct flow *flow = open_n(1000000 + i % 64);

		flow_mark_closed(&t.ft, flow, WHY_DONE, 0, 1);
		if (flow_defer_due(&t.ft, 1))
			flow_defer_scan(&t.ft, table_release, NULL, 1);
	}
	flow_defer_scan(&t.ft, table_release, NULL, 1);
}

static void bench_life(void)
{
	uint32_t n = 200000;

	setup(1000);
	report("flow_alloc_cancel", best(alloc_and_cancel, &n, n), "ns");
	report("flow_open_close", best(life, &n, n), "ns");
	table_teardown(&t);
}

/* scan_ns() - Close some of 100 000 flows, time the scan only
 * @stride:	One of so many is closed */
static double scan_ns(uint32_t flows, uint32_t closed, uint32_t offset,
		      uint32_t stride)
{
	uint64_t low = UINT64_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t start;

		for (uint32_t k = 0; k < closed; k++) {
			flow_sidx_t sidx = { .flow = (offset + k * stride) %
						     flows };

			flow_mark_closed(&t.ft, flow_at(&t.ft, sidx), WHY_DONE,
					 0, 1);
		}
		start = clock_now();
		flow_defer_scan(&t.ft, table_release, NULL, 1);
		low = MIN(low, clock_now() - start);
		for (uint32_t k = 0; k < closed; k++)
			CHECK(open_n(2000000 + k));
	}
	return (double)low;
}

/* close_every() - Leave a table of as many free clusters as it can have */
static void close_every(uint32_t flows, uint32_t stride)
{
	for (uint32_t i = 0; i < flows; i += stride)
		flow_mark_closed(&t.ft, &t.ft.flows[i], WHY_DONE, 0, 1);
	flow_defer_scan(&t.ft, table_release, NULL, 1);
}

static void bench_scan(void)
{
	const uint32_t flows = 100000;
	uint64_t start;

	setup(flows);
	report("scan_100k_1_closed", scan_ns(flows, 1, 99999, 1), "ns");
	report("scan_100k_64_closed_spread", scan_ns(flows, 64, 0, flows / 64),
	       "ns");
	report("scan_100k_64_closed_together", scan_ns(flows, 64, 5000, 1),
	       "ns");
	close_every(flows, 2);
	flow_mark_closed(&t.ft, &t.ft.flows[flows - 1], WHY_DONE, 0, 1);
	start = clock_now();
	flow_defer_scan(&t.ft, table_release, NULL, 1);
	report("scan_50k_active_50k_clusters_1_closed",
	       (double)(clock_now() - start), "ns");
	table_teardown(&t);
}

static void set_up_and_free(void *arg)
{
	(void)arg;
	table_setup(&t, FLOWS_MAX);
	table_teardown(&t);
}

static void move_timers(void *arg)
{
	uint64_t *now = arg;

	for (uint32_t i = 0; i < 1000; i++)
		timer_set(&t.timers, &t.ft.flows[i], *now + NSEC_PER_SEC);
	*now += NSEC_PER_MSEC;
	while (timer_expire(&t.timers, *now))
		;
}

/** struct extraction - A frame to take apart again and again */
struct extraction {
	struct sample s;
	struct vnet_hdr vh;
	struct counters cnt;
	uint32_t n;
};

static void extract(void *arg)
{
	struct extraction *x = arg;
	struct frame frame;

	for (uint32_t i = 0; i < x->n; i++)
		CHECK(flow_extract(&frame, x->s.data, x->s.len, &x->vh,
				   &x->cnt) == EXTRACT_FLOW);
}

static void bench_extract(bool v4, const char *name)
{
	struct extraction x = { .n = SAMPLES };

	sample_simple(&x.s, v4, IPPROTO_TCP);
	x.vh.flags = VNET_F_DATA_VALID;
	report(name, best(extract, &x, x.n), "ns");
}

static void sum_64k(void *arg)
{
	static uint8_t buf[65536];
	volatile uint64_t *sum = arg;

	for (int i = 0; i < 1000; i++)
		*sum += csum_add(buf, sizeof(buf), 0);
}

int main(void)
{
	uint64_t now = 1;

	bench_lookup(1000, "lookup_1k", "lookup_miss_1k");
	bench_lookup(10000, "lookup_10k", "lookup_miss_10k");
	bench_lookup(100000, "lookup_100k", "lookup_miss_100k");
	bench_life();
	bench_scan();
	report("table_setup", best(set_up_and_free, NULL, 1), "ns");
	setup(1000);
	report("timer_move", best(move_timers, &now, 1000), "ns");
	table_teardown(&t);
	bench_extract(true, "extract_tcp4");
	bench_extract(false, "extract_tcp6");
	report("checksum", best(sum_64k, &now, 1000 * 65536) * 1024, "ns/KiB");
	printf("\n]\n");
	return 0;
}
