// SPDX-License-Identifier: GPL-2.0-or-later
/* A split virtqueue (VIRTIO 1.2, 2.7), driven without indirect descriptors. */

#define _GNU_SOURCE

#include <string.h>
#include <unistd.h>

#include "vm_ring.h"

#define NO_NOTIFY    1 /* of used.flags: do not kick */
#define NO_INTERRUPT 1 /* of avail.flags: do not call */

/* The last word of each ring tells the other side when to speak up */
static uint16_t *used_event(struct ring *r)
{
	return &r->avail[2 + r->size];
}

static const uint16_t *avail_event(const struct ring *r)
{
	return (const uint16_t *)&r->done[r->size];
}

/**
 * ring_init() - Lay out an empty ring
 * @r:		Ring
 * @memory:	RING_BYTES(@size) zero bytes, at a multiple of 16
 * @size:	Descriptors
 * @event_idx:	VIRTIO_RING_F_EVENT_IDX was negotiated
 */
void ring_init(struct ring *r, uint8_t *memory, uint16_t size, bool event_idx)
{
	memset(r, 0, sizeof(*r));
	r->size = size;
	r->event_idx = event_idx;
	r->desc = (struct ring_desc *)memory;
	r->avail = (uint16_t *)(memory + 16UL * size);
	r->used = (uint16_t *)(memory + ((18UL * size + 6 + 3) & ~3UL));
	r->done = (struct ring_used *)(r->used + 2);
	r->free_count = size;
	for (uint16_t i = 0; i < size; i++)
		r->next[i] = (uint16_t)(i + 1);
}

/**
 * ring_take() - Take free descriptors and chain them
 * @r:		Ring with as many free
 * @count:	How many
 *
 * Return: the first; each one's @next in the table leads to the following one
 */
uint16_t ring_take(struct ring *r, uint16_t count)
{
	uint16_t head = r->free, last = head;

	for (uint16_t i = 1; i < count; i++) {
		r->desc[last].next = r->next[last];
		last = r->next[last];
	}
	r->free = r->next[last];
	r->free_count = (uint16_t)(r->free_count - count);
	r->chain[head] = count;
	return head;
}

/* ring_offer() - Make a chain available; the device may not know it yet */
void ring_offer(struct ring *r, uint16_t head)
{
	r->avail[2 + (r->made & (r->size - 1))] = head;
	r->made++;
}

/* ring_kick() - Publish what was offered; wake the device if it wants that */
void ring_kick(struct ring *r)
{
	uint16_t added = (uint16_t)(r->made - r->told);
	const uint64_t one = 1;
	bool wanted;

	if (!added)
		return;
	__atomic_store_n(&r->avail[1], r->made, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (r->event_idx) {
		uint16_t event =
			__atomic_load_n(avail_event(r), __ATOMIC_RELAXED);

		wanted = (uint16_t)(r->made - event - 1) < added;
	} else {
		wanted = !(__atomic_load_n(&r->used[0], __ATOMIC_RELAXED) &
			   NO_NOTIFY);
	}
	r->told = r->made;
	if (wanted)
		(void)!write(r->kick, &one, sizeof(one));
}

/**
 * ring_pop() - Take back a chain that the device has used
 * @r:		Ring
 * @ret_id:	Its first descriptor; all of the chain are free again
 * @ret_len:	Bytes that the device has written
 *
 * Return: false if there is none
 */
bool ring_pop(struct ring *r, uint16_t *ret_id, uint32_t *ret_len)
{
	uint16_t id, last;

	if (__atomic_load_n(&r->used[1], __ATOMIC_ACQUIRE) == r->seen)
		return false;
	id = (uint16_t)r->done[r->seen & (r->size - 1)].id;
	*ret_len = r->done[r->seen & (r->size - 1)].len;
	*ret_id = id;
	r->seen++;

	last = id;
	for (uint16_t i = 1; i < r->chain[id]; i++)
		last = r->next[last];
	r->next[last] = r->free;
	r->free = id;
	r->free_count = (uint16_t)(r->free_count + r->chain[id]);
	return true;
}

/**
 * ring_arm() - Before waiting: say whether we want to be called
 * @r:		Ring
 * @wanted:	Call us at the next used chain
 *
 * Return: true if there is one already, then there is no need to wait
 */
bool ring_arm(struct ring *r, bool wanted)
{
	if (!r->event_idx)
		r->avail[0] = wanted ? 0 : NO_INTERRUPT;
	else if (wanted)
		*used_event(r) = r->seen;
	else /* as far away as can be: the other half of all numbers */
		*used_event(r) = (uint16_t)(r->seen - 1);
	if (!wanted)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&r->used[1], __ATOMIC_ACQUIRE) != r->seen;
}
