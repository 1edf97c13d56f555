/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_from_tap.h - Datagrams from the guest: the frames of a burst */
#ifndef PASSTPY_PROTO_UDP_FROM_TAP_H
#define PASSTPY_PROTO_UDP_FROM_TAP_H

#include "proto/handler.h"

void udp_from_tap(struct ctx *c, struct flow *flow, struct burst *b);

#endif /* PASSTPY_PROTO_UDP_FROM_TAP_H */
