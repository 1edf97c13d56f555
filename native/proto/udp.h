/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp.h - What UDP flows over the tap and past it end by */
#ifndef PASSTPY_PROTO_UDP_H
#define PASSTPY_PROTO_UDP_H

#include "proto/ctx.h"

/* udp_timer() - Close the flow if it was idle for long, else look again */
void udp_timer(struct ctx *c, struct flow *flow);
/* udp_defer() - Close its sockets */
bool udp_defer(struct ctx *c, struct flow *flow);

#endif /* PASSTPY_PROTO_UDP_H */
