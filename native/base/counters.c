/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters.c - Names of the counters, from counters.def */

#include "base/counters.h"
#include "base/lower.h"

#define COUNTER(name, meaning)                                    \
	static const char lower_##name[LOWER_MAX] = LOWER(#name); \
	_Static_assert(sizeof(#name) <= LOWER_MAX, #name " is too long");
#include "base/counters.def"
#undef COUNTER

const char *const counter_names[CNT_NUM] = {
#define COUNTER(name, meaning) [CNT_##name] = lower_##name,
#include "base/counters.def"
#undef COUNTER
};

const char *const counter_meanings[CNT_NUM] = {
#define COUNTER(name, meaning) [CNT_##name] = meaning,
#include "base/counters.def"
#undef COUNTER
};
