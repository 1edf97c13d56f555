/* SPDX-License-Identifier: GPL-2.0-or-later */
/* idle.h - Datagram flows in the order in which they may have to go
 *
 * UDP and ping flows end by a time-out only, so that whoever opens many of them
 * could fill the table. Near a limit those that have been idle go early, the
 * oldest first; never one in use. Flows from outside stand in a list of their
 * own: neither they nor the guest's push out the other's. So do those of the
 * guest that share a socket, where descriptors are what is scarce.
 */
#ifndef PASSTPY_TABLE_IDLE_H
#define PASSTPY_TABLE_IDLE_H

#include "base/clock.h"
#include "table/flow_table.h"

#define IDLE_MIN (2 * NSEC_PER_SEC) /* who was used since is not idle */

/* idle_add(), idle_remove() - A flow becomes active, is closed; TCP is ignored */
void idle_add(struct flow_table *ft, struct flow *flow);
void idle_remove(struct flow_table *ft, struct flow *flow);

/**
 * idle_oldest() - A flow that is idle, for its time, longer than others; or NULL
 * @kind:	In which list
 * @type:	One of this type; FLOW_TYPE_NONE: of any
 *
 * Looks at a few flows at most, so that it costs the same however many are in
 * use, or of other types; those go to the end of the line.
 */
struct flow *idle_oldest(struct flow_table *ft, enum idle_kind kind,
			 enum flow_type type, uint64_t now);

/* idle_set_sharing() - Do others need the socket of the guest's flow as well? */
void idle_set_sharing(struct flow_table *ft, struct flow *flow, bool sharing);

#endif /* PASSTPY_TABLE_IDLE_H */
