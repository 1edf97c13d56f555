// SPDX-License-Identifier: GPL-2.0-or-later
/* What is counted and how it is reported, and the pattern that streams carry. */

#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#define MAX_SAMPLES 2000000

/**
 * fill_pattern() - Make the bytes that every stream carries
 * @pattern:	PATTERN_SIZE bytes
 */
void fill_pattern(uint8_t *pattern)
{
	uint32_t x = 2463534242U;
	size_t i;

	for (i = 0; i < PATTERN_PERIOD; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		pattern[i] = (uint8_t)x;
	}
	for (; i < PATTERN_SIZE; i++)
		pattern[i] = pattern[i - PATTERN_PERIOD];
}

/**
 * meter_count() - Bytes of a stream have arrived
 * @m:		Meter of the stream
 * @age_ns:	Time since the start of the run
 * @n:		Bytes
 */
void meter_count(struct meter *m, uint64_t age_ns, size_t n)
{
	uint64_t bin = age_ns / BIN_NS;

	m->bytes += n;
	m->bins[bin < MAX_BINS ? bin : MAX_BINS - 1] += n;
	if (!m->rate)
		return;
	m->ahead -= (double)(age_ns - m->at_ns) * (double)m->rate / NS_PER_S;
	m->ahead = (m->ahead > 0 ? m->ahead : 0) + (double)n;
	m->at_ns = age_ns;
	if (m->ahead > m->most)
		m->most = m->ahead;
}

/**
 * meter_burst_ms() - What came beyond the rate in any time, in ms of the rate
 * @m:		Meter of the stream
 *
 * Return: the most of it; 0 without a rate
 */
double meter_burst_ms(const struct meter *m)
{
	return m->rate ? m->most / (double)m->rate * 1000 : 0;
}

static uint64_t longest_gap(const struct meter *m, uint64_t bins)
{
	uint64_t gap = 0, worst = 0, i;

	for (i = 0; i < bins; i++) {
		gap = m->bins[i] ? 0 : gap + 1;
		if (gap > worst)
			worst = gap;
	}
	return worst * BIN_MS;
}

/**
 * report_received() - Print what the receiving side of streams prints
 * @o:		Options
 * @meters:	One for each stream
 * @count:	Number of streams
 * @exact:	Every stream ended, and had the right bytes
 * @extra:	More members of the object, each with a comma before it
 */
void report_received(const struct options *o, struct meter *const *meters,
		     unsigned int count, bool exact, const char *extra)
{
	uint64_t bins = (o->warmup_ns + o->seconds_ns) / BIN_NS;
	uint64_t first = o->warmup_ns / BIN_NS;
	uint64_t total = 0, counted = 0, worst = 0, bin_sum, i;
	unsigned int stalled = 0, k;

	if (bins > MAX_BINS)
		bins = MAX_BINS;
	for (k = 0; k < count; k++) {
		uint64_t gap = longest_gap(meters[k], bins);

		total += meters[k]->bytes;
		for (i = first; i < bins; i++)
			counted += meters[k]->bins[i];
		stalled += gap >= 1000;
		if (gap > worst)
			worst = gap;
	}

	printf("{\"bytes\": %llu, \"gbit\": %.6f, \"longest_gap_ms\": %llu, "
	       "\"stalled\": %u, \"burst_ms\": %.1f, "
	       "\"exact\": %s%s, \"bins\": [",
	       (unsigned long long)total,
	       (double)counted * 8 / (double)((bins - first) * BIN_NS),
	       (unsigned long long)worst, stalled, meter_burst_ms(meters[0]),
	       exact ? "true" : "false", extra);
	for (i = 0; i < bins; i++) {
		for (bin_sum = 0, k = 0; k < count; k++)
			bin_sum += meters[k]->bins[i];
		printf("%s%llu", i ? ", " : "", (unsigned long long)bin_sum);
	}
	printf("]}\n");
}

bool samples_init(struct samples *s)
{
	s->count = 0;
	s->ns = malloc(MAX_SAMPLES * sizeof(*s->ns));
	return s->ns;
}

/* samples_add() - One more duration; those beyond two million are forgotten */
void samples_add(struct samples *s, uint64_t ns)
{
	if (s->count < MAX_SAMPLES)
		s->ns[s->count++] = (uint32_t)ns;
}

static int compare_ns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(const struct samples *s, double fraction)
{
	return s->ns[(size_t)((double)(s->count - 1) * fraction)] / 1000.0;
}

/**
 * report_exchanges() - Print what clients of small exchanges print
 * @s:		Duration of each exchange, at least one; sorted here
 * @seconds:	That all took
 * @extra:	More members of the object, each with a comma before it
 */
void report_exchanges(struct samples *s, double seconds, const char *extra)
{
	qsort(s->ns, s->count, sizeof(*s->ns), compare_ns);
	printf("{\"count\": %zu%s, \"per_second\": %.1f, "
	       "\"median_us\": %.2f, \"p99_us\": %.2f}\n",
	       s->count, extra, (double)s->count / seconds,
	       percentile_us(s, 0.5), percentile_us(s, 0.99));
}
