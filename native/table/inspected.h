/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inspected.h - Flows without a socket, whose guest says first where it wants to go
 *
 * Each has a place here until it goes on, or until Python knows that it ended;
 * the places with news are those that Python is to be told of. So neither the
 * flows nor what is told of them is more than there are places.
 */
#ifndef PASSTPY_TABLE_INSPECTED_H
#define PASSTPY_TABLE_INSPECTED_H

#include <stdbool.h>
#include <stdint.h>

#define INSPECTED_MAX	512   /* flows; the places of a bitmap of whole words */
#define INSPECTED_BYTES 16384 /* of a flow's first ones that Python is shown */

/** struct inspected - All of them
 * @flow_id:	Of each place that is taken
 * @taken:	Places, a bit each
 * @news:	Those of which Python is to be told, a bit each
 * @n_news:	How many
 * @next:	The place after that of which it was told last: who has news again
 *		and again is behind all others
 */
struct inspected {
	uint64_t flow_id[INSPECTED_MAX];
	uint64_t taken[INSPECTED_MAX / 64];
	uint64_t news[INSPECTED_MAX / 64];
	uint32_t n_news;
	uint32_t next;
};

/* inspected_add() - Take a place for a flow; -ENFILE: there is none */
int inspected_add(struct inspected *s, uint64_t flow_id);

/* inspected_remove() - The flow of a place goes on, or Python knows that it ended */
void inspected_remove(struct inspected *s, unsigned place);

/* inspected_news() - Its guest has said more, or it has ended */
void inspected_news(struct inspected *s, unsigned place);

/* inspected_next() - Take a place with news off those that have some; -1: none has */
int inspected_next(struct inspected *s);

#endif /* PASSTPY_TABLE_INSPECTED_H */
