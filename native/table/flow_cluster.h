/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_cluster.h - Free clusters: which entries of the flow table are unused
 *
 * For flow_table.c and flow_check.c only. Entries never move, because epoll
 * and the hash refer to them by index; so free entries lie between used ones.
 * A contiguous free run is a cluster: its first entry says how long it is and
 * where the next one starts. Invariants (flow_table_check()):
 *
 *  - runs are disjoint and linked in rising order, from @first_free on; the
 *    @next of the last one is @top
 *  - every entry from @top to @max is free, too: these are the last cluster,
 *    which needs no header, so that a new table is made without touching it
 *  - but for the first entry's struct flow_run, and each one's generation,
 *    entries of a run are zero
 *  - no two runs touch, and none touches @top
 *  - a bit of @run_map is set exactly for the first entry of each run: so the
 *    run before an entry is found without a walk along the list
 */
#ifndef PASSTPY_TABLE_FLOW_CLUSTER_H
#define PASSTPY_TABLE_FLOW_CLUSTER_H

#include "table/flow_table.h"

#define FLOW_INDEX_NONE UINT32_MAX

/** struct flow_run - Header of a free cluster, in @priv of its first entry
 * @count:	Entries
 * @next:	Index of the next run, or the table's @top
 */
struct flow_run {
	uint32_t count;
	uint32_t next;
};

static inline struct flow_run *flow_run_at(const struct flow_table *ft,
					   uint32_t i)
{
	return (struct flow_run *)(void *)ft->flows[i].priv;
}

uint32_t flow_run_take(struct flow_table *ft);
uint32_t flow_run_before(const struct flow_table *ft, uint32_t i);
void flow_run_add(struct flow_table *ft, uint32_t i);

#endif /* PASSTPY_TABLE_FLOW_CLUSTER_H */
