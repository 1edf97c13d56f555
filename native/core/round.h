/* SPDX-License-Identifier: GPL-2.0-or-later */
/* round.h - One round: everybody who has something to do gets a share */
#ifndef PASSTPY_CORE_ROUND_H
#define PASSTPY_CORE_ROUND_H

#include "core/datapath.h"

/* round_run() - Serve every source that waits, and all that follows from it */
void round_run(struct datapath *dp);

/* round_is_wanted() - Is there something to do that epoll will not tell of? */
bool round_is_wanted(const struct datapath *dp);

#endif /* PASSTPY_CORE_ROUND_H */
