/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest_rings.h - An honest driver of a machine's rings, which uses its buffers
 * again and again
 *
 * Each descriptor has a slot of memory of its own, of the same number.
 */
#ifndef PASSTPY_TESTS_GUEST_RINGS_H
#define PASSTPY_TESTS_GUEST_RINGS_H

#include <fcntl.h>
#include <sys/eventfd.h>

#include "base/macros.h"
#include "core/datapath.h"
#include "core/gate.h"
#include "link/tap_vhost.h"
#include "vring.h"

#define RINGS_SIZE  64		/* descriptors of each ring */
#define RINGS_SLOT  (68 * 1024) /* bytes that one of them may point to */
#define RINGS_SMALL 2048	/* where frames may take several buffers */
#define RINGS_RAM   (2 * RINGS_SIZE * RINGS_SLOT + (64 << 10))

/** struct guest_rings
 * @ram:	Memory
 * @ring:	Queues
 * @slot:	First slot of each
 * @kick:	Their eventfds
 * @call:	The same
 * @mrg:	A frame may take several buffers, and the header counts them
 */
struct guest_rings {
	struct vram ram;
	struct vring ring[VHOST_QUEUES];
	uint8_t *slot[VHOST_QUEUES];
	int kick[VHOST_QUEUES];
	int call[VHOST_QUEUES];
	bool mrg;
};

static inline uint32_t rings_hdr_len(const struct datapath *dp)
{
	return vhost_of(&dp->ctx.tap)->hdr_len;
}

static inline uint8_t *rings_at(struct guest_rings *r, unsigned i, uint32_t d)
{
	return r->slot[i] + (size_t)d * RINGS_SLOT;
}

static inline void rings_kick(struct guest_rings *r, unsigned i)
{
	uint64_t one = 1;

	CHECK_EQ(write(r->kick[i], &one, sizeof(one)), sizeof(one));
}

/* rings_offer() - Give descriptor @d to be received into */
static inline void rings_offer(struct guest_rings *r, uint16_t d)
{
	struct vring *ring = &r->ring[VHOST_TO_GUEST];

	ring->desc[d] = (struct virtq_desc){
		.addr = vram_guest(&r->ram, rings_at(r, VHOST_TO_GUEST, d)),
		.len = r->mrg ? RINGS_SMALL : RINGS_SLOT,
		.flags = VIRTQ_DESC_F_WRITE,
	};
	vring_offer(ring, d);
}

/* rings_start() - As a driver that has just been loaded
 * @features:	VHOST_F_*, of those that we offer */
static inline void rings_start(struct guest_rings *r, struct datapath *dp,
			       uint64_t features)
{
	struct guest_region region = vram_region(&r->ram);
	struct tap *t = &dp->ctx.tap;

	r->mrg = features & VHOST_F_MRG_RXBUF;
	CHECK_EQ(vhost_set_features(t, features), 0);
	CHECK_EQ(vhost_set_memory(t, &region, 1), 0);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		struct vring *ring = &r->ring[i];
		struct virtq_addr addr = vring_addr(ring);

		memset(ring->desc, 0, RINGS_SIZE * sizeof(*ring->desc));
		memset(ring->avail, 0, 6 + 2U * RINGS_SIZE);
		memset(ring->used, 0, 6 + 8U * RINGS_SIZE);
		ring->next = ring->seen = 0;
		for (uint16_t d = 0; i == VHOST_TO_GUEST && d < RINGS_SIZE; d++)
			rings_offer(r, d);
		CHECK_EQ(vhost_start(t, i, &addr, 0,
				     fcntl(r->kick[i], F_DUPFD_CLOEXEC, 0),
				     fcntl(r->call[i], F_DUPFD_CLOEXEC, 0)),
			 0);
		CHECK_EQ(vhost_enable(t, i, true), 0);
	}
	gate_sync(dp);
}

static inline void rings_setup(struct guest_rings *r)
{
	*r = (struct guest_rings){ 0 };
	vram_setup(&r->ram, RINGS_RAM);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		vring_setup(&r->ring[i], &r->ram, RINGS_SIZE);
		r->slot[i] = vram_take(&r->ram, RINGS_SIZE * RINGS_SLOT);
		r->kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		r->call[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		CHECK(r->kick[i] >= 0 && r->call[i] >= 0);
	}
}

static inline void rings_teardown(struct guest_rings *r)
{
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		close(r->kick[i]);
		close(r->call[i]);
	}
	vram_teardown(&r->ram);
}

/* rings_send() - Offer a frame, header and rest apart; false: the ring is full */
static inline bool rings_send(struct guest_rings *r, struct datapath *dp,
			      const struct vnet_hdr *vh, const uint8_t *frame,
			      size_t len)
{
	struct vring *ring = &r->ring[VHOST_FROM_GUEST];
	uint32_t hdr_len = rings_hdr_len(dp);
	struct virtq_used_elem done;
	uint16_t d = ring->next;
	uint8_t *p = rings_at(r, VHOST_FROM_GUEST, d);

	while (vring_used(ring, &done))
		;
	if ((uint16_t)(ring->avail->idx - ring->seen) >= RINGS_SIZE / 2)
		return false;
	memset(p, 0, hdr_len);
	memcpy(p, vh, sizeof(*vh));
	memcpy(p + hdr_len, frame, MIN(len, (size_t)RINGS_SLOT - hdr_len));
	ring->desc[d] = (struct virtq_desc){ vram_guest(&r->ram, p), hdr_len,
					     VIRTQ_DESC_F_NEXT,
					     (uint16_t)(d + 1) };
	ring->desc[d + 1] =
		(struct virtq_desc){ vram_guest(&r->ram, p + hdr_len),
				     (uint32_t)len, 0, 0 };
	ring->next = (uint16_t)((d + 2) % RINGS_SIZE);
	vring_offer(ring, d);
	if (!(ring->used->flags & VIRTQ_USED_F_NO_NOTIFY))
		rings_kick(r, VHOST_FROM_GUEST);
	return true;
}

/* rings_take() - The next buffer that has something, added to @buf */
static inline bool rings_take(struct guest_rings *r, uint8_t *buf, size_t size,
			      size_t *len)
{
	struct virtq_used_elem e;

	if (!vring_used(&r->ring[VHOST_TO_GUEST], &e))
		return false;
	CHECK(e.id < RINGS_SIZE);
	CHECK(e.len <= r->ring[VHOST_TO_GUEST].desc[e.id].len);
	CHECK(*len + e.len <= size);
	memcpy(buf + *len, rings_at(r, VHOST_TO_GUEST, e.id), e.len);
	*len += e.len;
	rings_offer(r, (uint16_t)e.id);
	return true;
}

/* rings_recv() - A frame for the guest; its length, or -1 */
static inline ssize_t rings_recv(struct guest_rings *r, struct datapath *dp,
				 struct vnet_hdr *vh, uint8_t *frame,
				 size_t size)
{
	static uint8_t buf[RINGS_SIZE * RINGS_SMALL + RINGS_SLOT];
	uint32_t hdr_len = rings_hdr_len(dp);
	unsigned bufs;
	size_t len = 0;

	if (!rings_take(r, buf, sizeof(buf), &len))
		return -1;
	CHECK(len > hdr_len);
	memcpy(vh, buf, sizeof(*vh));
	bufs = hdr_len == 12 ? buf[10] | (unsigned)buf[11] << 8 : 1;
	CHECK(bufs && (r->mrg || bufs == 1));
	while (--bufs) /* a frame shows whole, or not */
		CHECK(rings_take(r, buf, sizeof(buf), &len));
	CHECK(len - hdr_len <= size);
	memcpy(frame, buf + hdr_len, len - hdr_len);
	rings_kick(r, VHOST_TO_GUEST);
	return (ssize_t)(len - hdr_len);
}

#endif /* PASSTPY_TESTS_GUEST_RINGS_H */
