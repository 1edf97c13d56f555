/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gate.h - Whether host sockets are heard
 *
 * A guest that can be full has the sockets of its flows in an epoll instance of
 * their own (EPOLL_GATED), which is registered in the main one. That
 * registration is the gate: without interest in it nothing behind it is told,
 * and what waits, waits in sockets.
 */
#ifndef PASSTPY_CORE_GATE_H
#define PASSTPY_CORE_GATE_H

#include "core/datapath.h"

/* gate_init() - Put up the gate, shut; 0 or -errno */
int gate_init(struct datapath *dp);

/* gate_sync() - Hear host sockets if, and only if, the guest takes frames */
void gate_sync(struct datapath *dp);

#endif /* PASSTPY_CORE_GATE_H */
