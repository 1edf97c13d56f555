/* SPDX-License-Identifier: GPL-2.0-or-later */
/* filter.c - Choosing flows by a program that Python made of an expression */

#include "table/filter.h"

#include <assert.h>

#include "base/macros.h"

#define ENDS 4

/** struct ends - Who began a flow, and whom it is meant for
 * @addr:	The first half began it, the second half was asked for
 */
struct ends {
	union inany addr[ENDS];
	uint16_t port[ENDS];
};

static struct ends ends_of(const struct border_flow *f)
{
	return (struct ends){
		.addr = { f->eaddr0, f->oaddr1, f->oaddr0, f->eaddr1 },
		.port = { f->eport0, f->oport1, f->oport0, f->eport1 },
	};
}

static bool is_within(const union inany *addr, const struct filter_step *s)
{
	return (addr->w[0] & s->mask.w[0]) == s->value.w[0] &&
	       (addr->w[1] & s->mask.w[1]) == s->value.w[1];
}

/* ask_ends() - Is any of the ends that a step means what it wants? */
static bool ask_ends(const struct filter_step *s, const struct border_flow *f)
{
	struct ends ends = ends_of(f);
	unsigned i = s->arg == FILTER_DST ? ENDS / 2 : 0;
	unsigned end = s->arg == FILTER_SRC ? ENDS / 2 : ENDS;

	for (; i < end; i++) {
		if (s->code == FILTER_ADDR ?
			    is_within(&ends.addr[i], s) :
			    ends.port[i] >= s->low && ends.port[i] <= s->high)
			return true;
	}
	return false;
}

static bool ask_count(const struct filter_step *s, const struct border_flow *f,
		      uint64_t now)
{
	const uint64_t counts[] = {
		[FILTER_BYTES] = f->bytes0 + f->bytes1,
		[FILTER_PACKETS] = f->packets0 + f->packets1,
		[FILTER_AGE] = now - MIN(f->created_ns, now),
		[FILTER_IDLE] = now - MIN(f->last_use_ns, now),
	};
	uint64_t value = counts[s->arg];

	switch (s->low) {
	case FILTER_MORE:
		return value > s->number;
	case FILTER_LESS:
		return value < s->number;
	case FILTER_AT_LEAST:
		return value >= s->number;
	case FILTER_AT_MOST:
		return value <= s->number;
	default:
		return value == s->number;
	}
}

static bool ask(const struct filter_step *s, const struct border_flow *f,
		uint64_t now)
{
	union inany who = f->eaddr0;

	switch (s->code) {
	case FILTER_TYPE:
		return s->number >> f->type & 1;
	case FILTER_ADDR:
	case FILTER_PORT:
		return ask_ends(s, f);
	case FILTER_PIF:
		return f->pif0 == s->arg;
	case FILTER_V4:
		return inany_is_v4(&who) == s->arg;
	case FILTER_RULE:
		return f->flow_id != FILTER_NO_FLOW && f->rule == s->number;
	case FILTER_ID:
		return f->flow_id == s->number;
	default:
		return ask_count(s, f, now);
	}
}

static bool step_is_sound(const struct filter_step *s)
{
	switch (s->code) {
	case FILTER_ADDR:
	case FILTER_PORT:
		return s->arg <= FILTER_DST;
	case FILTER_COUNT:
		return s->arg <= FILTER_IDLE && s->low <= FILTER_EQUAL;
	default:
		return s->code < FILTER_CODES;
	}
}

bool filter_is_sound(const struct filter_step *steps, unsigned n)
{
	unsigned depth = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned taken = steps[i].code == FILTER_NOT ? 1 : 0;

		if (steps[i].code == FILTER_AND || steps[i].code == FILTER_OR)
			taken = 2;
		if (!step_is_sound(&steps[i]) || depth < taken)
			return false;
		depth += 1 - taken;
		if (depth > FILTER_DEPTH)
			return false;
	}
	return n <= FILTER_STEPS_MAX && depth == (n ? 1 : 0);
}

bool filter_takes(const struct filter_step *steps, unsigned n,
		  const struct border_flow *flow, uint64_t now)
{
	bool answers[FILTER_DEPTH] = { true }; /* of an empty program */
	unsigned depth = 0;

	for (const struct filter_step *s = steps; s < steps + n; s++) {
		switch (s->code) {
		case FILTER_NOT:
			answers[depth - 1] = !answers[depth - 1];
			break;
		case FILTER_AND:
			depth--;
			answers[depth - 1] &= answers[depth];
			break;
		case FILTER_OR:
			depth--;
			answers[depth - 1] |= answers[depth];
			break;
		default:
			assert(depth < FILTER_DEPTH);
			answers[depth++] = ask(s, flow, now);
		}
	}
	return answers[0];
}
