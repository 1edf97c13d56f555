/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inspected.c - Flows without a socket, whose guest says first where it wants to go */

#include "table/inspected.h"

#include <assert.h>
#include <errno.h>

#define WORDS (INSPECTED_MAX / 64)

_Static_assert(INSPECTED_MAX % 64 == 0, "whole words");

static bool has(const uint64_t *map, unsigned place)
{
	return map[place / 64] >> place % 64 & 1;
}

int inspected_add(struct inspected *s, uint64_t flow_id)
{
	for (unsigned w = 0; w < WORDS; w++) {
		unsigned place;

		if (s->taken[w] == UINT64_MAX)
			continue;
		place = w * 64 + (unsigned)__builtin_ctzll(~s->taken[w]);
		s->taken[w] |= 1ULL << place % 64;
		s->flow_id[place] = flow_id;
		return (int)place;
	}
	return -ENFILE;
}

void inspected_remove(struct inspected *s, unsigned place)
{
	uint64_t bit = 1ULL << place % 64;

	assert(has(s->taken, place));
	s->taken[place / 64] &= ~bit;
	s->n_news -= has(s->news, place);
	s->news[place / 64] &= ~bit;
}

void inspected_news(struct inspected *s, unsigned place)
{
	assert(has(s->taken, place));
	s->n_news += !has(s->news, place);
	s->news[place / 64] |= 1ULL << place % 64;
}

int inspected_next(struct inspected *s)
{
	uint64_t from = UINT64_MAX << s->next % 64;

	/* Once around: of the word where it begins, first the end and then all */
	for (unsigned n = 0; s->n_news && n <= WORDS; n++) {
		unsigned w = (s->next / 64 + n) % WORDS, place;
		uint64_t news = s->news[w] & (n ? UINT64_MAX : from);

		if (!news)
			continue;
		place = w * 64 + (unsigned)__builtin_ctzll(news);
		s->news[w] &= ~(1ULL << place % 64);
		s->n_news--;
		s->next = (place + 1) % INSPECTED_MAX;
		return (int)place;
	}
	return -1;
}
