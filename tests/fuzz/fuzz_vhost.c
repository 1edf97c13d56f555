/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A driver out of its mind, around the whole backend of rings
 *
 * Each step offers frames and buffers, spoils memory, and lets the tap read,
 * write, flush and find room; now and then rings are stopped, memory is mapped
 * anew or taken away, features change. Where choices are random a thread goes on
 * writing into memory for another tenth of the steps, while the tap uses it. At
 * the end an honest driver must get its frames through.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "drive.h"
#include "vhost.h"

#define RAM   (1 << 20)
#define RINGS 8192 /* bytes at the start that hold both rings, and more */

static struct vhost h;
static unsigned long steps, frames, sent, waited, broken, lost;

static uint64_t random_features(void)
{
	uint64_t features = VHOST_FEATURES;

	if (one_in(3))
		features &= test_random64(&rnd);
	if (one_in(4))
		features &= ~VHOST_F_MRG_RXBUF;
	return features;
}

/* start() - Both rings, memory in two regions, as after a reset of the guest */
static void start(void)
{
	struct guest_region r[2] = { vram_region(&h.ram), vram_region(&h.ram) };

	tap_detach(&h.tap);
	CHECK_EQ(ftruncate(h.ram.fd, RAM), 0);
	r[0].size = RAM / 2;
	r[1].size = RAM / 2;
	r[1].guest += RAM / 2;
	r[1].user += RAM / 2;
	r[1].offset += RAM / 2;
	CHECK_EQ(vhost_set_features(&h.tap, random_features()), 0);
	CHECK_EQ(vhost_set_memory(&h.tap, r, 2), 0);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		h.ring[i].avail->idx = h.ring[i].used->idx;
		vhost_start_ring(&h, i);
	}
}

static void make_desc(struct virtq_desc *d, uint16_t flags)
{
	d->addr = VRAM_GUEST + RINGS + below(RAM - RINGS);
	d->len = one_in(10) ? below(200000) : below(3000);
	d->flags = flags | (one_in(3) ? VIRTQ_DESC_F_NEXT : 0);
	d->next = (uint16_t)below(VHOST_SIZE);
	if (one_in(60))
		d->addr = test_random64(&rnd);
	if (one_in(100))
		d->len = (uint32_t)test_random64(&rnd);
	if (one_in(100))
		d->flags ^= (uint16_t)(1 << below(4));
}

static void offer(unsigned i)
{
	uint16_t flags = i == VHOST_TO_GUEST ? VIRTQ_DESC_F_WRITE : 0;
	struct vring *r = &h.ring[i];
	uint16_t head = (uint16_t)below(VHOST_SIZE);

	if ((uint16_t)(r->avail->idx - r->used->idx) >= VHOST_SIZE)
		return;
	make_desc(&r->desc[head], flags);
	if (one_in(4)) {
		uint32_t n = 1 + below(4);
		uint32_t at = RINGS + 16 * below(100);

		for (uint32_t k = 0; k < n; k++) {
			struct virtq_desc *d =
				(void *)(h.ram.bytes + at + 16 * k);

			make_desc(d, flags);
			d->next = (uint16_t)below(n);
		}
		r->desc[head] = (struct virtq_desc){ VRAM_GUEST + at, 16 * n,
						     VIRTQ_DESC_F_INDIRECT, 0 };
	}
	vring_offer(r, head);
}

/* spoil() - Mostly in the rings */
static void spoil(void)
{
	uint32_t at = below(one_in(4) ? RAM : 4000);

	if (one_in(4))
		h.ring[below(2)].avail->idx = (uint16_t)test_random64(&rnd);
	else
		h.ram.bytes[at] = (uint8_t)test_random64(&rnd);
}

static void read_frames(void)
{
	const size_t size = TAP_BATCH_BYTES + 2 * TAP_FRAME_MAX;
	int n;
	/* Only merging, which has looked, may say that a checksum is right */
	uint8_t allowed = VNET_F_NEEDS_CSUM |
			  (h.tap.merge ? VNET_F_DATA_VALID : 0);

	if (h.batch.t)
		vhost_show(&h);
	n = tap_read(&h.tap);
	CHECK(n >= 0 || n == -EFAULT);
	CHECK(n <= TAP_BATCH);
	for (int i = 0; i < n; i++) {
		const struct tap_rx *rx = &h.tap.rx[i];

		CHECK(rx->data >= h.tap.rx_buf &&
		      rx->data + rx->len <= h.tap.rx_buf + size);
		CHECK(!(rx->vh.flags & ~allowed));
		frames++;
	}
	if (n < 0) {
		lost++;
		start();
	}
}

static void write_frames(void)
{
	for (uint32_t n = below(4); n; n--) {
		uint32_t len = one_in(2) ? below(60000) : below(1000);
		int err =
			vhost_segment(&h, len, (uint16_t)(50 + below(3000)), 7);

		CHECK(err == 0 || err == -EAGAIN || err == -EMSGSIZE ||
		      err == -EBADMSG || err == -ENOTCONN);
		sent += !err;
		waited += backlog_len(&vhost_of(&h.tap)->backlog) > 0;
	}
}

/* control() - What the front-end may ask for at any time */
static void control(void)
{
	unsigned i = below(VHOST_QUEUES);
	struct guest_region r = vram_region(&h.ram);

	switch (below(5)) {
	case 0:
		(void)vhost_stop(&h.tap, i);
		break;
	case 1:
		vhost_enable(&h.tap, i, one_in(2));
		break;
	case 2:
		if (one_in(2))
			r.guest += 4096;
		if (one_in(4))
			r.user += 4096;
		CHECK_EQ(vhost_set_memory(&h.tap, &r, 1), 0);
		break;
	case 3: /* for the tap; the driver's own mapping is not touched */
		CHECK_EQ(ftruncate(h.ram.fd, 0), 0);
		read_frames();
		write_frames();
		vhost_show(&h);
		CHECK_EQ(ftruncate(h.ram.fd, RAM), 0);
		break;
	default:
		start();
	}
}

static bool is_broken(void)
{
	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		if (!vhost_runs(&vhost_of(&h.tap)->queue[i]))
			return true;
	return false;
}

static void step_with(bool may_truncate)
{
	for (uint32_t n = below(8); n; n--)
		offer(below(VHOST_QUEUES));
	for (uint32_t n = one_in(10) ? below(3) : 0; n; n--)
		spoil();
	read_frames();
	write_frames();
	if (one_in(2))
		tap_room(&h.tap);
	vhost_show(&h);
	CHECK(vhost_of(&h.tap)->backlog.end <= BACKLOG_MAX);
	if (may_truncate && one_in(200))
		control();
	broken += is_broken();
	if (is_broken() || one_in(200))
		start();
}

/* Writing while the tap uses it */

static atomic_bool over;

static void *write_on(void *arg)
{
	volatile uint8_t *bytes = h.ram.bytes;
	struct test_random r = { 77 };

	(void)arg;
	while (!atomic_load(&over)) {
		uint32_t at = test_below(&r, 6) ? test_below(&r, 4000) :
						  test_below(&r, RAM);

		bytes[at] = (uint8_t)test_random64(&r);
	}
	return NULL;
}

/* serve_once() - After all that, a driver in its right mind */
static void serve_once(void)
{
	static uint8_t buf[70000];
	struct vnet_hdr vh;
	uint8_t *p;

	tap_detach(&h.tap);
	memset(h.ram.bytes, 0, RINGS);
	CHECK_EQ(vhost_set_features(&h.tap, VHOST_FEATURES), 0);
	vhost_map(&h);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		h.ring[i].next = 0;
		h.ring[i].seen = 0;
		vhost_start_ring(&h, i);
	}
	h.ram.fill = RINGS;
	vhost_offer(&h, 50, 2000);
	CHECK_EQ(vhost_segment(&h, 60000, 1448, 3), 0);
	vhost_show(&h);
	CHECK_EQ(vhost_recv(&h, &vh, buf, sizeof(buf), NULL), 60054);
	CHECK(vhost_payload_is(buf + 54, 0, 60000, 3));
	p = vring_add_bytes(&h.ring[VHOST_FROM_GUEST], 112, 0);
	memset(p, 0, 112);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(h.tap.rx[0].len, 100);
}

static void write_meanwhile(void)
{
	pthread_t thread;

	CHECK(frames > steps / 10 && sent > steps / 10 && waited && broken &&
	      lost);
	CHECK_EQ(pthread_create(&thread, NULL, write_on, NULL), 0);
	for (unsigned long n = steps / 10; n; n--)
		step_with(false); /* the thread's own mapping must not vanish */
	atomic_store(&over, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void begin(void)
{
	vhost_setup_ram(&h, VHOST_FEATURES, RAM);
}

static void step(void)
{
	steps++;
	step_with(true);
}

static void end(void)
{
	if (drive_long)
		write_meanwhile();
	serve_once();
	vhost_teardown(&h);
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
