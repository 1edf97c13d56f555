/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp.h - What core/ needs of TCP besides its handler */
#ifndef PASSTPY_PROTO_TCP_H
#define PASSTPY_PROTO_TCP_H

#include "proto/ctx.h"
#include "link/extract.h"

/**
 * tcp_init() - Set up what TCP flows share; after tap and flow table
 * @secret:	16 random bytes for initial sequence numbers
 *
 * Return: 0 or -errno
 */
int tcp_init(struct ctx *c, const uint8_t secret[16]);
void tcp_fini(struct ctx *c);

/**
 * tcp_reset_unknown() - Answer a segment that belongs to no flow
 *
 * RFC 9293 section 3.10.7.1: RST, never in reply to RST.
 */
void tcp_reset_unknown(struct ctx *c, const struct frame *f);

#endif /* PASSTPY_PROTO_TCP_H */
