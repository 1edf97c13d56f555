/* SPDX-License-Identifier: GPL-2.0-or-later */
/* handlers.h - The table of handlers: which code owns which type of flow */
#ifndef PASSTPY_CORE_HANDLERS_H
#define PASSTPY_CORE_HANDLERS_H

#include "proto/handler.h"

/* By enum flow_type; NULL for a type that no handler owns */
extern const struct handler *const handlers[FLOW_NUM_TYPES];

/* handlers_type() - Type of a flow of an IP protocol; FLOW_TYPE_NONE: none
 * @splices:	From socket to socket, without the tap */
enum flow_type handlers_type(uint8_t ipproto, bool splices);

/**
 * handlers_init() - Tell table/ what each protocol's sockets wait for, and let
 * handlers make what their flows share; after tap and flow table
 *
 * Return: 0 or -errno; handlers_fini() is to be called in both cases
 */
int handlers_init(struct ctx *c, const uint8_t secret[16]);
void handlers_fini(struct ctx *c);

/* handlers_flush() - End of a batch: let each handler send what it put off
 * @sleep:	The datapath is about to wait for events
 * Return: true when there is more, for which the budget did not suffice */
bool handlers_flush(struct ctx *c, bool sleep);

/* handlers_close() - Mark an open flow closed; both ends are told, as far as they
 * can be */
void handlers_close(struct ctx *c, struct flow *flow, enum flow_why why);

/* handlers_defer() - A flow_defer_fn: ask the flow's handler to let go of it */
bool handlers_defer(void *ctx, struct flow *flow);

#endif /* PASSTPY_CORE_HANDLERS_H */
