/* SPDX-License-Identifier: GPL-2.0-or-later */
/* macros.h - The few macros everybody needs */
#ifndef PASSTPY_BASE_MACROS_H
#define PASSTPY_BASE_MACROS_H

#include <assert.h>
#include <stddef.h>

#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)	 ((a) < (b) ? (a) : (b))
#define MAX(a, b)	 ((a) > (b) ? (a) : (b))
#define ROUND_DOWN(x, y) ((x) / (y) * (y))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif /* PASSTPY_BASE_MACROS_H */
