/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keyed.c - Hands out numbers, and finds those in use again by a hash */

#include "table/keyed.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/room.h"

#define CHAINS_MIN 64

static size_t bytes_of(const struct keyed *k)
{
	return ((size_t)k->mask + 1 + k->max) * sizeof(uint32_t);
}

int keyed_init(struct keyed *k, uint32_t max)
{
	uint32_t chains = CHAINS_MIN;
	void *area;

	while (chains < max)
		chains *= 2;
	*k = (struct keyed){ .mask = chains - 1, .max = max };
	area = room_reserve(bytes_of(k));
	if (area == MAP_FAILED)
		return -ENOMEM;
	k->head = area;
	k->next = k->head + chains;
	return 0;
}

void keyed_free(struct keyed *k)
{
	if (k->head)
		munmap(k->head, bytes_of(k));
	*k = (struct keyed){ 0 };
}

uint32_t keyed_add(struct keyed *k, uint32_t hash)
{
	uint32_t *head = &k->head[hash & k->mask];
	uint32_t i;

	if (k->free) {
		i = k->free - 1;
		k->free = k->next[i];
	} else if (k->top < k->max) {
		i = k->top++;
	} else {
		return KEYED_NONE;
	}
	k->next[i] = *head;
	*head = i + 1;
	k->used++;
	return i;
}

void keyed_del(struct keyed *k, uint32_t hash, uint32_t i)
{
	uint32_t *link = &k->head[hash & k->mask];

	while (*link != i + 1) {
		assert(*link);
		link = &k->next[*link - 1];
	}
	*link = k->next[i];
	k->next[i] = k->free;
	k->free = i + 1;
	k->used--;
}
