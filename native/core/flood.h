/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flood.h - What happens when the guest is refused far too much
 *
 * Refusing a frame is cheap, and yet hundreds of thousands of them a second
 * take a core, and fill the device's queue before the frames of open flows.
 * When much more is refused than any guest that is well would ask for, the
 * kernel is told to drop that kind of frame for a while (link/sieve.h), and new
 * flows are admitted at a lower rate (table/admit.h).
 */
#ifndef PASSTPY_CORE_FLOOD_H
#define PASSTPY_CORE_FLOOD_H

#include "base/clock.h"
#include "link/sieve.h"

struct datapath;

#define FLOOD_WINDOW  (20 * NSEC_PER_MSEC) /* counted, and dropped, so long */
#define FLOOD_REFUSED 128 /* frames of a kind refused in it are a flood */

/* Refused without a kind that the kernel could tell: datagrams of new flows */
#define FLOOD_OTHER SIEVE_NUM

/** struct flood
 * @refused:	Frames refused since the window began, by enum sieve_kind
 * @end:	When the window ends; UINT64_MAX: nothing was refused in it
 * @dropped:	Kinds that the kernel drops, until then
 */
struct flood {
	uint32_t refused[SIEVE_NUM + 1];
	uint64_t end;
	uint32_t dropped;
};

void flood_init(struct flood *f);

/* flood_refused() - A frame was read in vain
 * @kind:	enum sieve_kind, or FLOOD_OTHER */
void flood_refused(struct datapath *dp, unsigned kind);

/* flood_look() - End a window that is over; begin to drop what is too much */
void flood_look(struct datapath *dp);

#endif /* PASSTPY_CORE_FLOOD_H */
