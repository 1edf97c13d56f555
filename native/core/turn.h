/* SPDX-License-Identifier: GPL-2.0-or-later */
/* turn.h - What the turn loop shares with the rest of core/ */
#ifndef PASSTPY_CORE_TURN_H
#define PASSTPY_CORE_TURN_H

#include "core/datapath.h"

/* time_is_virtual() - Tests: time comes with each turn, no clock is read */
static inline bool time_is_virtual(const struct ctx *c)
{
	return c->timers.fd < 0;
}

#endif /* PASSTPY_CORE_TURN_H */
