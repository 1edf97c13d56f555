/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dispatch.h - From frames to the handlers of their flows */
#ifndef PASSTPY_CORE_DISPATCH_H
#define PASSTPY_CORE_DISPATCH_H

#include "core/datapath.h"

/**
 * dispatch_tap() - Read one batch from the tap and hand it out
 *
 * Nothing may be left of the batch before. Stops where the budget does, and
 * dispatch_rest() goes on from there.
 *
 * Frames of one flow go to its handler as one burst, flows in order of their
 * first frame. Frames for services go to dp->punts, those without a flow to
 * the stage.
 *
 * Return: number of frames, or -errno when the tap is gone
 */
int dispatch_tap(struct datapath *dp);

/* dispatch_has_rest() - Is something left of the last batch? */
static inline bool dispatch_has_rest(const struct datapath *dp)
{
	return dp->batch.left;
}

/* dispatch_rest() - Hand out what is left of the last batch, within bounds */
void dispatch_rest(struct datapath *dp);

/* dispatch_forget() - The guest is gone, and so is what it sent */
void dispatch_forget(struct datapath *dp);

/* dispatch_replay() - Hand a handler the guest's frames parked in a miss */
void dispatch_replay(struct ctx *c, struct flow *flow, const struct miss *m);

#endif /* PASSTPY_CORE_DISPATCH_H */
