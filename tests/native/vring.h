/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vring.h - The driver's end of a virtqueue, in a memfd: for what it offers
 *
 * An honest driver by default; tests write into @desc, @avail and @used to make
 * it lie. Rings lie at the start of memory, buffers are taken from behind them
 * one after the other and never given back, as tests are short.
 */
#ifndef PASSTPY_TESTS_VRING_H
#define PASSTPY_TESTS_VRING_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "link/guest_mem.h"
#include "link/virtq.h"
#include "test.h"

#define VRAM_GUEST 0x40000000ULL     /* where the guest sees its memory */
#define VRAM_USER  0x7f1200000000ULL /* where its front-end does */

/** struct vram - A guest's memory
 * @fd:		memfd
 * @size:	Bytes
 * @bytes:	Our mapping, as the guest's own
 * @fill:	Bytes handed out
 */
struct vram {
	int fd;
	size_t size;
	uint8_t *bytes;
	size_t fill;
};

/** struct vring - A queue, as its driver sees it
 * @ram:	Memory
 * @size:	Entries
 * @desc:	Descriptor table
 * @avail:	Available ring
 * @used:	Used ring
 * @next:	Next descriptor to use
 * @seen:	Entries of the used ring that were looked at
 */
struct vring {
	struct vram *ram;
	uint16_t size;
	struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	uint16_t next;
	uint16_t seen;
};

static inline void vram_setup(struct vram *ram, size_t size)
{
	ram->fd = memfd_create("vram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(ram->fd >= 0);
	CHECK_EQ(ftruncate(ram->fd, (off_t)size), 0);
	ram->size = size;
	ram->fill = 0;
	ram->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			  ram->fd, 0);
	CHECK(ram->bytes != MAP_FAILED);
}

static inline void vram_teardown(struct vram *ram)
{
	munmap(ram->bytes, ram->size);
	close(ram->fd);
}

static inline struct guest_region vram_region(const struct vram *ram)
{
	return (struct guest_region){ .guest = VRAM_GUEST,
				      .size = ram->size,
				      .user = VRAM_USER,
				      .fd = ram->fd };
}

/* vram_take() - Bytes of memory, aligned to 64 */
static inline uint8_t *vram_take(struct vram *ram, size_t len)
{
	uint8_t *p = ram->bytes + ram->fill;

	ram->fill += (len + 63) & ~(size_t)63;
	CHECK(ram->fill <= ram->size);
	return p;
}

static inline uint64_t vram_guest(const struct vram *ram, const void *p)
{
	return VRAM_GUEST + (uint64_t)((const uint8_t *)p - ram->bytes);
}

static inline void *vram_at(const struct vram *ram, uint64_t guest)
{
	CHECK(guest - VRAM_GUEST < ram->size);
	return ram->bytes + (guest - VRAM_GUEST);
}

static inline void vring_setup(struct vring *r, struct vram *ram, uint16_t size)
{
	*r = (struct vring){ .ram = ram, .size = size };
	r->desc = (void *)vram_take(ram, size * sizeof(*r->desc));
	r->avail = (void *)vram_take(ram, 6 + 2U * size);
	r->used = (void *)vram_take(ram, 6 + 8U * size);
}

static inline struct virtq_addr vring_addr(const struct vring *r)
{
	uint64_t shift = VRAM_USER - VRAM_GUEST;

	return (struct virtq_addr){
		.size = r->size,
		.desc = vram_guest(r->ram, r->desc) + shift,
		.avail = vram_guest(r->ram, r->avail) + shift,
		.used = vram_guest(r->ram, r->used) + shift,
	};
}

/* vring_offer() - Show a chain that starts at @head to the device */
static inline void vring_offer(struct vring *r, uint16_t head)
{
	uint16_t idx = r->avail->idx;

	r->avail->ring[idx & (r->size - 1)] = head;
	__atomic_store_n(&r->avail->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

/**
 * vring_add() - Offer one chain of pieces of memory
 * @piece:	In memory of the guest
 * @n:		Entries of @piece
 * @flags:	VIRTQ_DESC_F_WRITE, or 0
 *
 * Return: its head
 */
static inline uint16_t vring_add(struct vring *r, const struct iovec *piece,
				 unsigned n, uint16_t flags)
{
	uint16_t head = r->next;

	for (unsigned i = 0; i < n; i++) {
		struct virtq_desc *d = &r->desc[r->next];

		r->next = (uint16_t)((r->next + 1) & (r->size - 1));
		*d = (struct virtq_desc){
			.addr = vram_guest(r->ram, piece[i].iov_base),
			.len = (uint32_t)piece[i].iov_len,
			.flags = flags,
			.next = r->next,
		};
		if (i + 1 < n)
			d->flags |= VIRTQ_DESC_F_NEXT;
	}
	vring_offer(r, head);
	return head;
}

/* vring_add_bytes() - Offer @len fresh bytes in one piece; returns them */
static inline uint8_t *vring_add_bytes(struct vring *r, size_t len,
				       uint16_t flags)
{
	struct iovec piece = { vram_take(r->ram, len), len };

	vring_add(r, &piece, 1, flags);
	return piece.iov_base;
}

/* vring_add_indirect() - Offer a chain by a table of its own */
static inline uint16_t vring_add_indirect(struct vring *r,
					  const struct iovec *piece, unsigned n,
					  uint16_t flags)
{
	struct virtq_desc *table = (void *)vram_take(r->ram, n * 16);
	uint16_t head = r->next;

	for (unsigned i = 0; i < n; i++) {
		table[i] = (struct virtq_desc){
			.addr = vram_guest(r->ram, piece[i].iov_base),
			.len = (uint32_t)piece[i].iov_len,
			.flags = (uint16_t)(flags | (i + 1 < n)),
			.next = (uint16_t)(i + 1),
		};
	}
	r->desc[head] = (struct virtq_desc){ .addr = vram_guest(r->ram, table),
					     .len = n * 16,
					     .flags = VIRTQ_DESC_F_INDIRECT };
	r->next = (uint16_t)((r->next + 1) & (r->size - 1));
	vring_offer(r, head);
	return head;
}

/* vring_used() - Next chain that the device gave back; false: none */
static inline bool vring_used(struct vring *r, struct virtq_used_elem *ret)
{
	if (__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE) == r->seen)
		return false;
	*ret = r->used->ring[r->seen++ & (r->size - 1)];
	return true;
}

#endif /* PASSTPY_TESTS_VRING_H */
