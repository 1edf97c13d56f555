/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_hash.c - From protocol, pif and flowside to a sidx
 *
 * Open addressing, linear probing; a bucket is 8 bytes, so that a probe
 * sequence stays in a cache line or two. Removal shifts later buckets back
 * instead of leaving tombstones: lookups do not get slower with age. The hash
 * is keyed with a secret: a guest cannot aim at one bucket.
 *
 * The table doubles when it is 70 % full. A table of n buckets starts at
 * bucket n of the reserved area: tables of different size do not overlap, and
 * the old one's pages go back to the kernel.
 */

#include "table/flow_hash.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "base/sys.h"

#define PAGE 4096 /* smallest page of the kernels we run on */

/** struct flow_key - What is hashed; packed, hence no uninitialised bytes */
struct flow_key {
	union inany eaddr;
	union inany oaddr;
	uint16_t eport;
	uint16_t oport;
	uint8_t ipproto;
	uint8_t pif;
} __attribute__((packed));

static const struct flow_bucket bucket_empty = { .sidx = FLOW_SIDX_NONE };

/* is_loaded() - Do so many of so many buckets in use mean: too many? */
static bool is_loaded(uint64_t used, uint64_t buckets)
{
	return used * 10 > buckets * 7;
}

/* flow_hash_area() - Bytes to reserve for the tables of all sizes */
size_t flow_hash_area(uint32_t max)
{
	size_t n = FLOW_HASH_MIN;

	while (is_loaded((uint64_t)max * SIDES, n))
		n *= 2;
	return 2 * n * sizeof(struct flow_bucket);
}

static void table_set(struct flow_table *ft, uint32_t buckets)
{
	ft->hash = ft->hash_area + buckets;
	ft->hash_mask = buckets - 1;
	for (uint32_t i = 0; i < buckets; i++)
		ft->hash[i] = bucket_empty;
}

void flow_hash_init(struct flow_table *ft)
{
	ft->hash_used = 0;
	table_set(ft, FLOW_HASH_MIN);
}

uint32_t flow_hash_of(const struct flow_table *ft, uint8_t ipproto, uint8_t pif,
		      const struct flowside *side)
{
	struct flow_key key = {
		.eaddr = side->eaddr,
		.oaddr = side->oaddr,
		.eport = side->eport,
		.oport = side->oport,
		.ipproto = ipproto,
		.pif = pif,
	};

	return (uint32_t)siphash(&ft->key, &key, sizeof(key));
}

static uint32_t tag_of_side(const struct flow_table *ft, flow_sidx_t sidx)
{
	const struct flow_common *f = &ft->flows[sidx.flow].f;

	return flow_hash_of(ft, flow_type_proto[f->type], f->pif[sidx.side],
			    &f->side[sidx.side]);
}

static bool is_empty(const struct flow_bucket *b)
{
	return flow_sidx_is_none(b->sidx);
}

static void put(struct flow_table *ft, struct flow_bucket b)
{
	uint32_t i = b.tag & ft->hash_mask;

	while (!is_empty(&ft->hash[i]))
		i = (i + 1) & ft->hash_mask;
	ft->hash[i] = b;
}

static void grow(struct flow_table *ft)
{
	struct flow_bucket *old = ft->hash;
	uint32_t buckets = ft->hash_mask + 1;

	table_set(ft, 2 * buckets);
	for (uint32_t i = 0; i < buckets; i++)
		if (!is_empty(&old[i]))
			put(ft, old[i]);
	if (buckets * sizeof(*old) % PAGE == 0)
		sys_madvise(old, buckets * sizeof(*old), MADV_DONTNEED);
}

/* flow_hash_complete() - Can this side be found by its addresses? */
bool flow_hash_complete(const struct flow *flow, unsigned sidei)
{
	const struct flowside *side = &flow->f.side[sidei];
	bool ping = flow->f.type == FLOW_PING4 || flow->f.type == FLOW_PING6;

	if (inany_is_any(&side->eaddr) || inany_is_any(&side->oaddr))
		return false;
	return ping || (side->eport && side->oport);
}

/* flow_hash_insert() - Make a side findable; it must not be, so far */
void flow_hash_insert(struct flow_table *ft, flow_sidx_t sidx)
{
	struct flow *flow = &ft->flows[sidx.flow];

	assert(!flow->f.hashed[sidx.side]);
	assert(flow_hash_complete(flow, sidx.side));

	if (is_loaded(ft->hash_used + 1, ft->hash_mask + 1))
		grow(ft);
	put(ft, (struct flow_bucket){ tag_of_side(ft, sidx), sidx });
	ft->hash_used++;
	flow->rw.hashed[sidx.side] = true;
}

/* flow_hash_remove() - The opposite; only while addresses are unchanged */
void flow_hash_remove(struct flow_table *ft, flow_sidx_t sidx)
{
	struct flow *flow = &ft->flows[sidx.flow];
	uint32_t mask = ft->hash_mask;
	uint32_t hole = tag_of_side(ft, sidx) & mask;
	struct flow_bucket *hash = ft->hash;

	assert(flow->f.hashed[sidx.side]);
	while (hash[hole].sidx.flow != sidx.flow ||
	       hash[hole].sidx.side != sidx.side) {
		assert(!is_empty(&hash[hole]));
		hole = (hole + 1) & mask;
	}

	/* Whoever would no longer be reached across the hole moves into it */
	for (uint32_t i = (hole + 1) & mask; !is_empty(&hash[i]);
	     i = (i + 1) & mask) {
		uint32_t home = hash[i].tag & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			hash[hole] = hash[i];
			hole = i;
		}
	}
	hash[hole] = bucket_empty;
	ft->hash_used--;
	flow->rw.hashed[sidx.side] = false;
}

static bool side_matches(const struct flow_common *f, unsigned sidei,
			 uint8_t ipproto, uint8_t pif,
			 const struct flowside *side)
{
	const struct flowside *s = &f->side[sidei];

	return s->eport == side->eport && s->oport == side->oport &&
	       inany_equal(&s->eaddr, &side->eaddr) &&
	       inany_equal(&s->oaddr, &side->oaddr) && f->pif[sidei] == pif &&
	       flow_type_proto[f->type] == ipproto;
}

/**
 * flow_lookup() - Find the flow side with these addresses
 * @ipproto:	IPPROTO_*
 * @pif:	Where a packet came from
 * @side:	Its addresses: endpoint is the remote party
 *
 * Return: flow and side, or FLOW_SIDX_NONE
 */
flow_sidx_t flow_lookup(const struct flow_table *ft, uint8_t ipproto,
			enum pif pif, const struct flowside *side)
{
	uint32_t tag = flow_hash_of(ft, ipproto, (uint8_t)pif, side);
	uint32_t i = tag & ft->hash_mask;

	for (; !is_empty(&ft->hash[i]); i = (i + 1) & ft->hash_mask) {
		flow_sidx_t sidx = ft->hash[i].sidx;

		if (ft->hash[i].tag == tag &&
		    side_matches(&ft->flows[sidx.flow].f, sidx.side, ipproto,
				 (uint8_t)pif, side))
			return sidx;
	}
	return FLOW_SIDX_NONE;
}
