/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ready.h - The ready list: flows that have something left to do
 *
 * A handler whose share of work is used up puts its flow here and returns; the
 * turn comes back to it after everybody else, without asking epoll. A flow
 * stands here at most once, and leaves when it is closed.
 */
#ifndef PASSTPY_TABLE_READY_H
#define PASSTPY_TABLE_READY_H

#include "table/flow_table.h"

/* ready_add() - Have the handler called again for a side: its from_sock(), as
 * if the side's socket were readable and writable */
void ready_add(struct flow_table *ft, struct flow *flow, unsigned sidei);

/**
 * ready_take() - Take out the flow that has waited longest
 * @ret_sides:	Filled: bit 0 for INISIDE, bit 1 for TGTSIDE
 *
 * Return: the flow, ACTIVE and not closed; NULL when nobody waits
 */
struct flow *ready_take(struct flow_table *ft, unsigned *ret_sides);

/* ready_remove() - Forget a flow that is closed; no harm if it is not there */
void ready_remove(struct flow_table *ft, struct flow *flow);

/* ready_check() - Assert every invariant; for tests and debug builds */
void ready_check(const struct flow_table *ft);

#endif /* PASSTPY_TABLE_READY_H */
