/* SPDX-License-Identifier: GPL-2.0-or-later */
/* crossing.h - Datagrams of clients whose server may have the other family alone
 *
 * Nobody accepts a datagram: that a port is closed in the client's family is known
 * when the first ones are gone. So these are kept, for a short time and of a few
 * flows; and of each listening socket the last flow that was served in the other
 * family, so that its next clients need not be refused first: a guest's kernel
 * refuses a few datagrams a second, no more.
 */
#ifndef PASSTPY_TABLE_CROSSING_H
#define PASSTPY_TABLE_CROSSING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define CROSSING_FLOWS	256  /* flows whose beginning is kept: the latest */
#define CROSSING_BUF	4096 /* bytes of each, with a header */
#define CROSSING_AGE	(2 * NSEC_PER_SEC)
#define CROSSING_SERVED 256 /* listening sockets: a power of two */

struct crossing_kept;

/** struct crossings
 * @kept:	CROSSING_FLOWS beginnings, a ring; pages are touched on demand
 * @next:	Slot that is used next
 * @served:	Listening sockets that may have a flow in the other family, by
 *		the low bits of their number: the number, and id of the flow
 */
struct crossings {
	struct crossing_kept *kept;
	uint16_t next;
	struct {
		uint32_t number;
		uint64_t flow_id;
	} served[CROSSING_SERVED];
};

int crossings_init(struct crossings *x); /* 0 or -ENOMEM */
void crossings_free(struct crossings *x);

/* crossings_begin() - Keep what begins a flow; return: the slot it is in */
uint16_t crossings_begin(struct crossings *x, uint64_t flow_id, uint64_t now);

/* crossings_keep() - Copy a datagram into a slot; what does not fit is left out */
void crossings_keep(struct crossings *x, uint16_t slot, const void *data,
		    uint32_t len);

/**
 * crossings_next() - Iterate what is kept of a flow: start with *pos = 0
 * @ret_len:	Filled with the length of the datagram, which may be 0
 *
 * Return: NULL at the end, which is at once if the slot is another flow's by now,
 *	   or if it is too long ago
 */
const uint8_t *crossings_next(const struct crossings *x, uint16_t slot,
			      uint64_t flow_id, uint64_t now, uint32_t *pos,
			      uint32_t *ret_len);

/* crossings_serve() - A flow of a listening socket goes on in the other family */
void crossings_serve(struct crossings *x, uint32_t number, uint64_t flow_id);

/* crossings_served() - Id of the last such flow of a listening socket, or 0 */
uint64_t crossings_served(const struct crossings *x, uint32_t number);

#endif /* PASSTPY_TABLE_CROSSING_H */
