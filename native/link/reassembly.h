/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reassembly.h - Datagrams of the guest that come in fragments
 *
 * Handlers see whole datagrams only. What a guest can make us hold is bounded:
 * REASSEMBLY_MAX datagrams of 64 KiB, for REASSEMBLY_TIME each; a new one takes
 * the place of the oldest. Their pages are touched as fragments arrive.
 */
#ifndef PASSTPY_LINK_REASSEMBLY_H
#define PASSTPY_LINK_REASSEMBLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "link/tap.h"
#include "link/extract.h"
#include "table/pool.h"

#define REASSEMBLY_MAX 64 /* datagrams being put together */
/* RFC 791 3.2 proposes 15 s. RFC 1122 asks hosts for a minute or more, RFC 8200
 * for a minute, with slow links in mind: ours is a wire of no length. */
#define REASSEMBLY_TIME (15 * NSEC_PER_SEC)

/** enum reassembly_state
 * @REASSEMBLY_FREE:	Unused
 * @REASSEMBLY_OPEN:	Fragments are missing
 * @REASSEMBLY_SPOILED:	Fragments contradict each other: all that come are
 *			dropped, nothing is kept (RFC 8200 4.5, RFC 5722)
 * @REASSEMBLY_DONE:	Handed out, until reassembly_release()
 */
enum reassembly_state {
	REASSEMBLY_FREE,
	REASSEMBLY_OPEN,
	REASSEMBLY_SPOILED,
	REASSEMBLY_DONE,
};

/** struct datagram - One datagram being put together
 * @state:	enum reassembly_state
 * @ipproto:	Of the first fragment; for IPv4 part of the key
 * @next_at:	IPv6: offset in the headers of the byte that says "Fragment"
 * @id:		Identification
 * @src:	Source address
 * @dst:	Destination address
 * @deadline:	ns; the oldest one has the first
 * @buf:	Pool index, or POOL_NONE
 * @headers:	Bytes of the first fragment's headers, 0: it did not come yet
 * @first:	Bytes of payload of the first fragment
 * @total:	Bytes of payload of all, 0: the last fragment did not come yet
 * @end:	End of the fragment that reaches farthest
 * @blocks:	Blocks of 8 bytes that came
 */
struct datagram {
	uint8_t state;
	uint8_t ipproto;
	uint16_t next_at;
	uint32_t id;
	union inany src;
	union inany dst;
	uint64_t deadline;
	uint32_t buf;
	uint32_t headers;
	uint32_t first;
	uint32_t total;
	uint32_t end;
	uint32_t blocks;
};

/** struct reassembly
 * @slot:	Datagrams
 * @bufs:	Their bytes
 * @done:	Datagrams handed out
 * @next_expiry: No deadline is before this, ns
 */
struct reassembly {
	struct datagram slot[REASSEMBLY_MAX];
	struct pool bufs;
	uint32_t done;
	uint64_t next_expiry;
};

/* reassembly_init() - 0, or -ENOMEM */
int reassembly_init(struct reassembly *r);
void reassembly_free(struct reassembly *r);

/**
 * reassembly_add() - Take in one fragment
 * @t:		Tap, for what the guest is to be told, and for its counters
 * @f:		From flow_extract(), which said EXTRACT_FRAGMENT
 * @ret_eth:	Set to the Ethernet frame of the whole datagram
 * @ret_len:	Set to its length
 *
 * The frame has a right IP header and the L4 header as it was sent; it stays
 * until reassembly_release().
 *
 * Return: true if the datagram is complete now
 */
bool reassembly_add(struct reassembly *r, struct tap *t, const struct frame *f,
		    uint64_t now, uint8_t **ret_eth, uint32_t *ret_len);

/* reassembly_release() - Whatever was handed out is not needed any more */
void reassembly_release(struct reassembly *r);

/* reassembly_expire() - Give up datagrams past their deadline, tell the guest
 * Costs one compare while none is due. */
void reassembly_expire(struct reassembly *r, struct tap *t, uint64_t now);

#endif /* PASSTPY_LINK_REASSEMBLY_H */
