/* SPDX-License-Identifier: GPL-2.0-or-later */
/* impair.h - A worse link than there is: delay, jitter, loss, another order
 *
 * For testing how programs bear it. Stands between tap.c and a backend, as a
 * backend itself, whose functions it calls; a tap that is not impaired knows
 * nothing of it. Frames wait as copies, in a bounded queue for each direction. A
 * super-segment is one frame. Chance is a sequence that a seed begins, and time
 * that of the loop, so that a test sees the same each time.
 */
#ifndef PASSTPY_LINK_IMPAIR_H
#define PASSTPY_LINK_IMPAIR_H

#include "link/tap.h"

#define IMPAIR_FRAMES	 16384		/* that wait in a direction */
#define IMPAIR_BYTES	 (64U << 20)	/* of these */
#define IMPAIR_DELAY_MAX 60000000000ULL /* ns */
#define IMPAIR_PPM	 1000000

enum impair_way { IMPAIR_FROM_GUEST, IMPAIR_TO_GUEST, IMPAIR_WAYS };

/** struct impair_link - What a direction is like
 * @delay:	ns
 * @jitter:	ns by which a delay is longer or shorter, at most; not above @delay
 * @loss_ppm:	Frames lost, per million
 * @reorder:	Frames with less delay overtake others; else jitter keeps order
 */
struct impair_link {
	uint64_t delay;
	uint64_t jitter;
	uint32_t loss_ppm;
	bool reorder;
};

/**
 * impair_set() - Impair a tap from now on, or in another way
 * @links:	By enum impair_way
 * @seed:	Of chance
 * @now:	Where the time stands, ns; must outlive the tap
 *
 * What is on its way stays so.
 *
 * Return: 0 or -ENOMEM
 */
int impair_set(struct tap *t, const struct impair_link *links, uint64_t seed,
	       const uint64_t *now);

#endif /* PASSTPY_LINK_IMPAIR_H */
