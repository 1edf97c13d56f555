/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keyed.h - Hands out numbers, and finds those in use again by a hash
 *
 * Owns: which numbers of a table's slots are free, and the chains of those whose
 * keys have the same hash. The slots, with their keys, are the table's own: it
 * walks a chain and compares. Everything is a reserved range touched on demand,
 * and costs nothing until it is used.
 */
#ifndef PASSTPY_TABLE_KEYED_H
#define PASSTPY_TABLE_KEYED_H

#include <stdint.h>

#define KEYED_NONE UINT32_MAX

/** struct keyed
 * @head:	First number + 1 of each chain; 0: empty
 * @next:	By number: the next one + 1, of its chain or of the free ones
 * @mask:	Chains - 1
 * @max:	Numbers
 * @top:	Numbers at and above were never used
 * @free:	First free number below @top + 1, or 0
 * @used:	Numbers in use
 */
struct keyed {
	uint32_t *head;
	uint32_t *next;
	uint32_t mask;
	uint32_t max;
	uint32_t top;
	uint32_t free;
	uint32_t used;
};

/* keyed_init() - Numbers from 0 to @max - 1; 0 or -ENOMEM */
int keyed_init(struct keyed *k, uint32_t max);
void keyed_free(struct keyed *k);

/* keyed_add() - A number for a new key; KEYED_NONE when all are in use */
uint32_t keyed_add(struct keyed *k, uint32_t hash);
/* keyed_del() - Give a number back; @hash as it was added with */
void keyed_del(struct keyed *k, uint32_t hash, uint32_t i);

/* keyed_first(), keyed_next() - Numbers that were added with a hash, and others
 * that share its chain; KEYED_NONE at the end */
static inline uint32_t keyed_first(const struct keyed *k, uint32_t hash)
{
	return k->head[hash & k->mask] - 1;
}

static inline uint32_t keyed_next(const struct keyed *k, uint32_t i)
{
	return k->next[i] - 1;
}

#endif /* PASSTPY_TABLE_KEYED_H */
