/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp.h - What TCP lends to other handlers: memory for bytes that wait */
#ifndef PASSTPY_PROTO_TCP_H
#define PASSTPY_PROTO_TCP_H

#include "proto/ctx.h"
#include "table/pool.h"

#define TCP_CHUNK (32U << 10) /* bytes of a chunk */

/* tcp_chunks() - Chunks of TCP_CHUNK bytes, for all kinds of TCP flows */
struct pool *tcp_chunks(const struct ctx *c);

#endif /* PASSTPY_PROTO_TCP_H */
