/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_hash.h - Buckets of the flow table's hash
 *
 * For flow_hash.c, flow_table.c and flow_check.c only.
 */
#ifndef PASSTPY_TABLE_FLOW_HASH_H
#define PASSTPY_TABLE_FLOW_HASH_H

#include "table/flow_table.h"

#define FLOW_HASH_MIN 256 /* buckets at the start */

/** struct flow_bucket - One bucket
 * @tag:	Low half of the key's hash. Its low bits say where the bucket
 *		wants to be; the rest tells most other keys without a look at
 *		the entry, and growing needs no hash to be computed
 * @sidx:	Flow and side, or FLOW_SIDX_NONE
 */
struct flow_bucket {
	uint32_t tag;
	flow_sidx_t sidx;
};

size_t flow_hash_area(uint32_t max);
void flow_hash_init(struct flow_table *ft);
uint32_t flow_hash_of(const struct flow_table *ft, uint8_t ipproto, uint8_t pif,
		      const struct flowside *side);
bool flow_hash_complete(const struct flow *flow, unsigned sidei);

#endif /* PASSTPY_TABLE_FLOW_HASH_H */
