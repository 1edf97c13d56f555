/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A split virtqueue (VIRTIO 1.2, 2.7) as its driver sees it. */

#ifndef VM_RING_H
#define VM_RING_H

#include <stdbool.h>
#include <stdint.h>

#define RING_F_NEXT   1
#define RING_F_WRITE  2
#define RING_SIZE_MAX 1024

struct ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct ring_used {
	uint32_t id;
	uint32_t len;
};

/**
 * struct ring - A virtqueue; its three parts lie in memory that is shared
 * @size:	Descriptors, a power of two
 * @event_idx:	VIRTIO_RING_F_EVENT_IDX was negotiated
 * @desc:	Descriptors
 * @avail:	flags, index, @size entries, used_event
 * @used:	flags and index, as 16-bit words; entries follow
 * @done:	Entries of @used
 * @free:	First descriptor not in use; they are chained by @next
 * @free_count:	Descriptors not in use
 * @made:	Chains made available
 * @told:	The same when the device was last kicked
 * @seen:	Chains taken back
 * @next:	Successors of free descriptors
 * @chain:	Descriptors of the chain that begins at each
 * @kick:	eventfd that wakes the device
 * @call:	eventfd that wakes us
 */
struct ring {
	uint16_t size;
	bool event_idx;
	struct ring_desc *desc;
	uint16_t *avail;
	uint16_t *used;
	struct ring_used *done;
	uint16_t free, free_count;
	uint16_t made, told, seen;
	uint16_t next[RING_SIZE_MAX];
	uint16_t chain[RING_SIZE_MAX];
	int kick, call;
};

#define RING_BYTES(size) (16UL * (size) + 8UL * (size) + 2UL * (size) + 64)

void ring_init(struct ring *r, uint8_t *memory, uint16_t size, bool event_idx);
uint16_t ring_take(struct ring *r, uint16_t count);
void ring_offer(struct ring *r, uint16_t head);
void ring_kick(struct ring *r);
bool ring_pop(struct ring *r, uint16_t *ret_id, uint32_t *ret_len);
bool ring_arm(struct ring *r, bool wanted);

#endif /* VM_RING_H */
