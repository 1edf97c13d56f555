/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rings of a driver out of its mind, through the walker
 *
 * Each step offers something, spoils descriptors, tables and rings, and
 * lets the device's end take, give back, rewind and notify. Whatever comes out
 * must lie within the guest's memory. Where choices are random a thread goes on
 * writing for another tenth of the steps while the walker reads: what was checked
 * must be what is used. Without the thread a failure repeats.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/macros.h"
#include "drive.h"
#include "vring.h"

#define SIZE  16
#define RAM   (1 << 18)
#define HALF  (RAM / 2)
#define TABLE 4096 /* where indirect tables are, in bytes of memory */

static struct vram ram;
static struct vring ring;
static struct guest_mem mem;
static struct virtq q;
static struct virtq_chain chain;
static unsigned long steps, taken, broken;

/* map() - Two regions that follow each other for the guest alone */
static void map(void)
{
	struct guest_region r[2] = { vram_region(&ram), vram_region(&ram) };

	r[0].size = HALF;
	r[1].guest += HALF;
	r[1].user += HALF;
	r[1].offset += HALF;
	r[1].size = HALF;
	CHECK_EQ(guest_mem_set(&mem, r, 2), 0);
}

static void restart(void)
{
	struct virtq_addr addr = vring_addr(&ring);
	uint16_t base = (uint16_t)(one_in(2) ? 0 : 65536 - below(20));

	if (one_in(20))
		addr.desc = VRAM_USER + below(RAM);
	if (one_in(20))
		addr.used = VRAM_USER + RAM - below(200);
	if (one_in(20))
		addr.size = below(40);
	ring.avail->idx = base;
	if (virtq_start(&q, &mem, &addr, base, one_in(2), !one_in(4))) {
		addr = vring_addr(&ring);
		CHECK_EQ(virtq_start(&q, &mem, &addr, base, one_in(2), true),
			 0);
	}
}

/* Spoiling */

static uint64_t odd_address(void)
{
	switch (below(6)) {
	case 0:
		return test_random64(&rnd);
	case 1:
		return VRAM_GUEST - below(20);
	case 2:
		return VRAM_GUEST + RAM - below(3000);
	case 3:
		return VRAM_GUEST + HALF - below(3000);
	case 4: /* the rings themselves */
		return VRAM_GUEST + below(1000);
	default:
		return VRAM_GUEST + below(RAM);
	}
}

static uint32_t odd_length(void)
{
	switch (below(5)) {
	case 0:
		return (uint32_t)test_random64(&rnd);
	case 1:
		return 0;
	case 2:
		return 16 * below(1100);
	default:
		return below(5000);
	}
}

static void make_desc(struct virtq_desc *d, uint32_t size)
{
	d->addr = one_in(4) ? odd_address() : VRAM_GUEST + below(RAM / 2);
	d->len = one_in(4) ? odd_length() : below(2000);
	d->flags = (uint16_t)(one_in(3) ? VIRTQ_DESC_F_NEXT : 0);
	d->next = (uint16_t)below(one_in(10) ? size + 3 : size);
	if (one_in(6))
		d->flags |= VIRTQ_DESC_F_WRITE;
	if (one_in(20))
		d->flags = (uint16_t)test_random64(&rnd);
}

static void make_table(struct virtq_desc *d)
{
	uint32_t n = 1 + below(one_in(10) ? 200 : 6);
	struct virtq_desc *table = (void *)(ram.bytes + TABLE);

	for (uint32_t i = 0; i < n; i++)
		make_desc(&table[i], n);
	d->addr = VRAM_GUEST + TABLE;
	d->len = 16 * n;
	d->flags = VIRTQ_DESC_F_INDIRECT;
	if (one_in(10))
		d->len += below(20);
	if (one_in(20))
		d->addr = odd_address();
	if (one_in(20))
		d->flags |= VIRTQ_DESC_F_NEXT;
}

static void spoil(void)
{
	switch (below(8)) {
	case 0:
		ram.bytes[below(ring.size * 32U)] ^= (uint8_t)(1 << below(8));
		break;
	case 1:
		ring.avail->idx = (uint16_t)test_random64(&rnd);
		break;
	case 2:
		ring.avail->ring[below(SIZE + 1)] =
			(uint16_t)test_random64(&rnd);
		break;
	case 3:
		ring.avail->flags = (uint16_t)test_random64(&rnd);
		break;
	case 4:
		ring.used->idx = (uint16_t)test_random64(&rnd);
		break;
	default:
		make_desc(&ring.desc[below(SIZE)], SIZE);
	}
}

static void offer(void)
{
	uint16_t head = (uint16_t)below(SIZE);

	make_desc(&ring.desc[head], SIZE);
	if (one_in(3))
		make_table(&ring.desc[head]);
	vring_offer(&ring, head);
}

/* Checking */

static bool is_mapped(const uint8_t *p, size_t len)
{
	for (unsigned i = 0; i < mem.n; i++) {
		const struct guest_map *m = &mem.map[i];

		if (p >= m->here && p + len <= m->here + m->size)
			return true;
	}
	return false;
}

static void check_chain(bool writable)
{
	uint64_t sum = 0;

	CHECK(chain.head < q.addr.size);
	CHECK(chain.n <= VIRTQ_CHAIN_MAX);
	for (unsigned i = 0; i < chain.n; i++) {
		uint8_t *p = chain.iov[i].iov_base;

		CHECK(chain.iov[i].iov_len);
		CHECK(is_mapped(p, chain.iov[i].iov_len));
		sum += chain.iov[i].iov_len;
		if (writable && one_in(4)) /* may well hit the rings */
			memset(p, (int)below(256),
			       MIN(chain.iov[i].iov_len, 100U));
	}
	CHECK_EQ(sum, chain.len);
}

static void take(void)
{
	bool writable = one_in(6);
	int rc = virtq_next(&q, writable, &chain);

	if (rc == 1) {
		taken++;
		check_chain(writable);
		if (!one_in(10))
			virtq_give(&q, chain.head, chain.len);
	} else if (rc) {
		CHECK_EQ(rc, -EBADMSG);
		CHECK(q.fault != VIRTQ_SOUND && q.fault < VIRTQ_NUM_FAULTS);
	} else {
		CHECK(!virtq_offered(&q));
	}
}

static void step(void)
{
	struct virtq_mark mark = virtq_mark(&q);

	for (uint32_t n = below(4); n; n--)
		offer();
	for (uint32_t n = one_in(4) ? below(4) : 0; n; n--)
		spoil();
	for (uint32_t n = below(6); n; n--)
		take();
	if (one_in(5))
		virtq_rewind(&q, mark);
	virtq_kicks_off(&q);
	virtq_publish(&q);
	(void)virtq_wants_call(&q);
	(void)virtq_kicks_on(&q);
	CHECK(virtq_poll(&q) <= (int)q.addr.size);
	if (one_in(500)) {
		map();
		(void)virtq_remap(&q);
	}
	steps++;
	broken += !!q.fault;
	if (q.fault || one_in(100))
		restart();
}

/* Writing while the walker reads */

static atomic_bool over;

static void *write_on(void *arg)
{
	volatile uint8_t *bytes = ram.bytes;
	struct test_random r = { 77 };

	(void)arg;
	while (!atomic_load(&over)) {
		uint32_t at = test_below(&r, 6) ? test_below(&r, 16 * SIZE) :
						  TABLE + test_below(&r, 200);

		bytes[at] = (uint8_t)test_random64(&r);
	}
	return NULL;
}

static void write_meanwhile(void)
{
	pthread_t thread;

	CHECK(taken > steps / 10 && broken > steps / 100);
	atomic_store(&over, false);
	CHECK_EQ(pthread_create(&thread, NULL, write_on, NULL), 0);
	for (unsigned long n = steps / 10; n; n--)
		step();
	atomic_store(&over, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void begin(void)
{
	vram_setup(&ram, RAM);
	vring_setup(&ring, &ram, SIZE);
	CHECK_EQ(guest_mem_init(&mem), 0);
	map();
	restart();
	steps = taken = broken = 0;
}

static void end(void)
{
	if (drive_long)
		write_meanwhile();
	guest_mem_free(&mem);
	vram_teardown(&ram);
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
