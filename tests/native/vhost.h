/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost.h - A virtual machine's network driver, around a tap of rings
 *
 * Two rings in one memory, kick and call eventfds; frames are told apart by a
 * number in their payload.
 */
#ifndef PASSTPY_TESTS_VHOST_H
#define PASSTPY_TESTS_VHOST_H

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>

#include "base/macros.h"
#include "link/frame.h"
#include "link/backends.h"
#include "link/tap_vhost.h"
#include "vring.h"

#define VHOST_RAM  (8 << 20)
#define VHOST_SIZE 64 /* entries of each ring */

/** struct vhost - The driver, and the tap at the other end
 * @ram:	Memory
 * @ring:	Queues
 * @kick:	Their eventfds, as the driver has them
 * @call:	The same
 * @tap:	Ours
 * @cnt:	Its counters
 * @log:	Its log
 * @now:	Its time, ns
 * @batch:	Frames for the driver that are not shown yet; @t NULL: none
 */
struct vhost {
	struct vram ram;
	struct vring ring[VHOST_QUEUES];
	int kick[VHOST_QUEUES];
	int call[VHOST_QUEUES];
	struct tap tap;
	struct counters cnt;
	struct flow_log log;
	uint64_t now;
	struct tap_batch batch;
};

/* vhost_show() - Flush: the driver sees what it was sent */
static inline void vhost_show(struct vhost *h)
{
	if (h->batch.t)
		tap_batch_end(&h->batch);
	h->batch.t = NULL;
	tap_flush(&h->tap);
}

static inline uint32_t vhost_hdr_len(const struct vhost *h)
{
	return vhost_of(&h->tap)->hdr_len;
}

static inline void vhost_map(struct vhost *h)
{
	struct guest_region r = vram_region(&h->ram);

	CHECK_EQ(vhost_set_memory(&h->tap, &r, 1), 0);
}

/* vhost_start_ring() - Start and enable one, with descriptors of its own */
static inline void vhost_start_ring(struct vhost *h, unsigned i)
{
	struct virtq_addr addr = vring_addr(&h->ring[i]);

	CHECK_EQ(vhost_start(&h->tap, i, &addr, h->ring[i].avail->idx,
			     fcntl(h->kick[i], F_DUPFD_CLOEXEC, 0),
			     fcntl(h->call[i], F_DUPFD_CLOEXEC, 0)),
		 0);
	CHECK_EQ(vhost_enable(&h->tap, i, true), 0);
}

static inline void vhost_setup_ram(struct vhost *h, uint64_t features,
				   size_t size)
{
	static const uint8_t ours[] = { 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55 };
	static const uint8_t guest[] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
	const struct tap_env env = { .cnt = &h->cnt,
				     .log = &h->log,
				     .now = &h->now };

	memset(h, 0, sizeof(*h));
	vram_setup(&h->ram, size);
	CHECK_EQ(flow_log_init(&h->log, 64, &h->cnt), 0);
	CHECK_EQ(tap_init(&h->tap, &tap_vhost_ops, &env), 0);
	memcpy(h->tap.our_mac, ours, sizeof(ours));
	memcpy(h->tap.guest_mac, guest, sizeof(guest));
	h->tap.mtu = 65520;
	CHECK(h->tap.blocked);
	CHECK_EQ(vhost_set_features(&h->tap, features), 0);
	vhost_map(h);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		vring_setup(&h->ring[i], &h->ram, VHOST_SIZE);
		h->kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		h->call[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		CHECK(h->kick[i] >= 0 && h->call[i] >= 0);
		vhost_start_ring(h, i);
	}
	CHECK(!h->tap.blocked);
}

static inline void vhost_setup(struct vhost *h, uint64_t features)
{
	vhost_setup_ram(h, features, VHOST_RAM);
}

static inline void vhost_teardown(struct vhost *h)
{
	tap_free(&h->tap);
	flow_log_free(&h->log);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		close(h->kick[i]);
		close(h->call[i]);
	}
	vram_teardown(&h->ram);
}

/* vhost_heard() - How often an eventfd was written, and forget it */
static inline uint64_t vhost_heard(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

/* vhost_kick() - As the guest does: only if it was asked to (flags, not
 * events) */
static inline void vhost_kick(struct vhost *h, unsigned i)
{
	uint64_t one = 1;

	if (h->ring[i].used->flags & VIRTQ_USED_F_NO_NOTIFY)
		return;
	CHECK_EQ(write(h->kick[i], &one, sizeof(one)), sizeof(one));
}

/* vhost_offer() - Give @n buffers of @len bytes to receive into */
static inline void vhost_offer(struct vhost *h, unsigned n, size_t len)
{
	while (n--)
		vring_add_bytes(&h->ring[VHOST_TO_GUEST], len,
				VIRTQ_DESC_F_WRITE);
}

/**
 * vhost_recv() - Take the next frame out of the receive ring
 * @h:		The driver
 * @ret_vh:	Its virtio-net header
 * @buf:	Where the frame goes
 * @size:	Room there
 * @ret_bufs:	Number of buffers it came in; or NULL
 *
 * Return: bytes of the frame, 0 when there is none
 */
static inline size_t vhost_recv(struct vhost *h, struct vnet_hdr *ret_vh,
				uint8_t *buf, size_t size, unsigned *ret_bufs)
{
	struct vring *r = &h->ring[VHOST_TO_GUEST];
	uint32_t skip = vhost_hdr_len(h), bufs = 1;
	struct virtq_used_elem e;
	size_t len = 0;

	for (uint32_t i = 0; i < bufs; i++) {
		uint32_t left;

		if (!vring_used(r, &e)) {
			CHECK(!i); /* a frame shows whole, or not */
			return 0;
		}
		left = e.len;
		for (uint16_t d = (uint16_t)e.id; left;) {
			const struct virtq_desc *desc = &r->desc[d];
			uint8_t *p = vram_at(&h->ram, desc->addr);
			uint32_t part = MIN(left, desc->len);

			CHECK(len + part <= size);
			memcpy(buf + len, p, part);
			len += part;
			left -= part;
			CHECK(!left || desc->flags & VIRTQ_DESC_F_NEXT);
			d = desc->next;
		}
		if (!i && skip == 12)
			bufs = buf[10] | (uint32_t)buf[11] << 8;
	}
	CHECK(bufs && len > skip);
	memcpy(ret_vh, buf, sizeof(*ret_vh));
	memmove(buf, buf + skip, len - skip);
	if (ret_bufs)
		*ret_bufs = bufs;
	return len - skip;
}

/* vhost_bytes() - Payload: up to 64 KiB, the next byte is 7 more than the last */
static inline const uint8_t *vhost_bytes(uint8_t seed)
{
	static uint8_t bytes[256 + 65536];

	if (!bytes[1])
		for (uint32_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(i * 7);
	return bytes + (uint8_t)(seed * 183); /* 183 * 7 is 1, modulo 256 */
}

/* vhost_segment() - A TCP super-segment to the guest; payload bytes count up
 * from @seed. Return: of tap_send() or tap_batch_send(); vhost_show() ends the
 * batch */
static inline int vhost_segment(struct vhost *h, uint32_t len, uint16_t mss,
				uint8_t seed)
{
	const uint8_t *payload = vhost_bytes(seed);
	union inany src, dst;
	struct iovec iov = { (void *)payload, len };
	struct frame_out f;
	uint8_t *l4;

	inany_from_v4(&src, (struct in_addr){ htonl(0xc0000201) });
	inany_from_v4(&dst, (struct in_addr){ htonl(0xc0000205) });
	l4 = frame_ip(&f, &h->tap, &src, &dst, IPPROTO_TCP, 20, len, 0);
	*(struct tcp_hdr *)l4 = (struct tcp_hdr){ .source = htons(80),
						  .off_res = 0x50,
						  .flags = TCP_FLAG_ACK };
	frame_csum_offload(&f, &src, &dst, IPPROTO_TCP, 20, len, 16);
	if (mss && len > mss)
		frame_gso(&f, VNET_GSO_TCPV4, mss);
	if (len <= TAP_COPY_MAX)
		return tap_send(&h->tap, &f, payload, len);
	if (!h->batch.t)
		h->batch = tap_batch_begin(&h->tap);
	return tap_batch_send(&h->batch, &f, &iov, 1, len);
}

/* vhost_payload_is() - Bytes @from on of such a segment's payload */
static inline bool vhost_payload_is(const uint8_t *p, uint32_t from,
				    uint32_t len, uint8_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		if (p[i] != (uint8_t)(seed + (from + i) * 7))
			return false;
	return true;
}

#endif /* PASSTPY_TESTS_VHOST_H */
