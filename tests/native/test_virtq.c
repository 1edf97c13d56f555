/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device's end of a virtqueue: an honest driver, and all the others */

#include <errno.h>

#include "base/macros.h"
#include "vring.h"

#define SIZE 8

static struct vram ram;
static struct vring ring;
static struct guest_mem mem;
static struct virtq q;
static struct virtq_chain chain;

static void start(uint16_t base, bool event_idx, bool indirect)
{
	struct virtq_addr addr = vring_addr(&ring);

	CHECK_EQ(virtq_start(&q, &mem, &addr, base, event_idx, indirect), 0);
}

static void setup(bool event_idx, bool indirect)
{
	struct guest_region r;

	vram_setup(&ram, 1 << 20);
	r = vram_region(&ram);
	CHECK_EQ(guest_mem_init(&mem), 0);
	CHECK_EQ(guest_mem_set(&mem, &r, 1), 0);
	vring_setup(&ring, &ram, SIZE);
	start(0, event_idx, indirect);
}

static void teardown(void)
{
	guest_mem_free(&mem);
	vram_teardown(&ram);
}

/* Honest drivers */

static void chains_come_in_order_with_all_their_pieces(void)
{
	struct iovec piece[3];

	setup(false, false);
	CHECK_EQ(virtq_next(&q, false, &chain), 0);
	for (unsigned i = 0; i < 3; i++) {
		piece[i].iov_base = vram_take(&ram, 100);
		piece[i].iov_len = 10 + i;
		memset(piece[i].iov_base, (int)i, 100);
	}
	vring_add(&ring, piece, 3, 0);
	vring_add(&ring, piece, 1, 0);
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.head, 0);
	CHECK_EQ(chain.n, 3);
	CHECK_EQ(chain.len, 33);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(chain.iov[i].iov_len, 10 + i);
		CHECK_EQ(*(uint8_t *)chain.iov[i].iov_base, i);
	}
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.head, 3);
	CHECK_EQ(chain.len, 10);
	CHECK_EQ(virtq_next(&q, false, &chain), 0);
	teardown();
}

static void indices_wrap(void)
{
	struct virtq_used_elem e;

	setup(false, false);
	ring.avail->idx = 65530;
	ring.used->idx = 65530;
	ring.seen = 65530;
	start(65530, false, false);
	for (unsigned i = 0; i < 100; i++) {
		vring_add_bytes(&ring, i + 1, VIRTQ_DESC_F_WRITE);
		CHECK_EQ(virtq_next(&q, true, &chain), 1);
		CHECK_EQ(chain.len, i + 1);
		virtq_give(&q, chain.head, i);
		CHECK(!vring_used(&ring, &e));
		virtq_publish(&q);
		CHECK(vring_used(&ring, &e));
		CHECK_EQ(e.id, chain.head);
		CHECK_EQ(e.len, i);
	}
	CHECK_EQ(virtq_next(&q, true, &chain), 0);
	teardown();
}

static void rewinding_gives_the_same_chains_again(void)
{
	struct virtq_used_elem e;
	struct virtq_mark mark;

	setup(false, false);
	for (unsigned i = 0; i < SIZE; i++)
		vring_add_bytes(&ring, 10 + i, VIRTQ_DESC_F_WRITE);
	CHECK_EQ(virtq_next(&q, true, &chain), 1);
	virtq_give(&q, chain.head, 1);
	mark = virtq_mark(&q);
	for (unsigned i = 1; i < SIZE; i++) {
		CHECK_EQ(virtq_next(&q, true, &chain), 1);
		virtq_give(&q, chain.head, 2);
	}
	CHECK_EQ(virtq_next(&q, true, &chain), 0);
	virtq_rewind(&q, mark);
	virtq_publish(&q);
	CHECK(vring_used(&ring, &e));
	CHECK_EQ(e.len, 1);
	CHECK(!vring_used(&ring, &e));
	CHECK_EQ(virtq_next(&q, true, &chain), 1);
	CHECK_EQ(chain.len, 11);
	CHECK_EQ(q.most, SIZE);
	teardown();
}

static void indirect_table_is_followed(void)
{
	struct iovec piece[2] = { { NULL, 20 }, { NULL, 30 } };

	setup(false, true);
	piece[0].iov_base = vram_take(&ram, 20);
	piece[1].iov_base = vram_take(&ram, 30);
	vring_add_indirect(&ring, piece, 2, 0);
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.head, 0);
	CHECK_EQ(chain.n, 2);
	CHECK_EQ(chain.len, 50);

	/* 2.7.5.3.2: direct descriptors may come before it */
	vring_add_indirect(&ring, piece, 2, 0);
	vring_add(&ring, piece, 1, 0);
	ring.desc[2].flags = VIRTQ_DESC_F_NEXT;
	ring.desc[2].next = 1;
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.n, 3);
	CHECK_EQ(chain.len, 70);
	teardown();
}

static void buffer_across_regions_comes_in_pieces(void)
{
	struct iovec piece = { NULL, 5000 };
	struct guest_region r[2];

	setup(false, false);
	r[0] = vram_region(&ram);
	r[1] = r[0];
	r[0].size = 1 << 16;
	r[1].guest += 1 << 16;
	r[1].user += 1 << 16;
	r[1].offset += 1 << 16;
	r[1].size -= 1 << 16;
	CHECK_EQ(guest_mem_set(&mem, r, 2), 0);
	CHECK_EQ(virtq_remap(&q), 0);
	piece.iov_base = ram.bytes + (1 << 16) - 1000;
	vring_add(&ring, &piece, 1, 0);
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.n, 2);
	CHECK_EQ(chain.len, 5000);
	CHECK_EQ(chain.iov[0].iov_len, 1000);
	CHECK_EQ(chain.iov[1].iov_len, 4000);
	teardown();
}

static void empty_pieces_are_passed_over(void)
{
	struct iovec piece[2];

	setup(false, false);
	piece[0] = (struct iovec){ ram.bytes, 0 };
	piece[1] = (struct iovec){ vram_take(&ram, 10), 10 };
	vring_add(&ring, piece, 2, 0);
	ring.desc[0].addr = 5; /* nowhere, but nothing is there to be read */
	CHECK_EQ(virtq_next(&q, false, &chain), 1);
	CHECK_EQ(chain.n, 1);
	CHECK_EQ(chain.len, 10);
	teardown();
}

/* Notifications */

/* give() - Give back @n buffers at once; does the guest want to know? */
static bool give(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		virtq_give(&q, 0, 0);
	virtq_publish(&q);
	return virtq_wants_call(&q);
}

static void calls_follow_the_flag(void)
{
	setup(false, false);
	CHECK(give(1));
	CHECK(!virtq_wants_call(&q));
	ring.avail->flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
	CHECK(!give(1));
	ring.avail->flags = 0;
	CHECK(give(1));
	teardown();
}

static void calls_follow_the_event_index(void)
{
	uint16_t *event;

	setup(true, false);
	event = &ring.avail->ring[SIZE];
	*event = 100; /* whatever it was before us: the first is told */
	CHECK(give(1));
	*event = 1; /* tell when entry 1 is used, that is, index 2 */
	CHECK(give(1));
	CHECK(!give(3));
	*event = 7;
	CHECK(!give(2)); /* now 7 entries, 0 to 6 */
	CHECK(give(4));
	CHECK(!virtq_wants_call(&q));
	teardown();
}

static void kicks_are_asked_for_by_the_flag(void)
{
	setup(false, false);
	virtq_kicks_off(&q);
	CHECK_EQ(ring.used->flags, VIRTQ_USED_F_NO_NOTIFY);
	CHECK(!virtq_kicks_on(&q));
	CHECK_EQ(ring.used->flags, 0);
	vring_add_bytes(&ring, 1, 0);
	CHECK(virtq_kicks_on(&q));
	teardown();
}

static void kicks_are_asked_for_by_the_event_index(void)
{
	uint16_t *event;

	setup(true, false);
	event = (uint16_t *)(void *)&ring.used->ring[SIZE];
	virtq_kicks_off(&q);
	CHECK_EQ(ring.used->flags, 0);
	vring_add_bytes(&ring, 1, 0);
	vring_add_bytes(&ring, 1, 0);
	CHECK_EQ(virtq_poll(&q), 2);
	CHECK(!virtq_kicks_on(&q));
	CHECK_EQ(*event, 2);
	vring_add_bytes(&ring, 1, 0);
	CHECK(virtq_kicks_on(&q));
	teardown();
}

/* Liars */

/* check_broken() - The next chain is refused, for this reason, and for good */
static void check_broken(enum virtq_fault fault)
{
	CHECK_EQ(virtq_next(&q, false, &chain), -EBADMSG);
	CHECK_EQ(q.fault, fault);
	ring.avail->idx = (uint16_t)(q.next_avail + 1);
	ring.desc[0] = (struct virtq_desc){ VRAM_GUEST, 1, 0, 0 };
	CHECK_EQ(virtq_next(&q, false, &chain), -EBADMSG);
	CHECK_EQ(virtq_poll(&q), -EBADMSG);
	CHECK(!virtq_kicks_on(&q));
	teardown();
}

static void more_entries_than_the_ring_has(void)
{
	setup(false, false);
	ring.avail->idx = SIZE + 1;
	check_broken(VIRTQ_AVAIL_AHEAD);
	setup(false, false);
	ring.avail->idx = 0xffff;
	check_broken(VIRTQ_AVAIL_AHEAD);
}

static void head_beyond_the_table(void)
{
	setup(false, false);
	vring_offer(&ring, SIZE);
	check_broken(VIRTQ_BAD_INDEX);
	setup(false, false);
	vring_offer(&ring, 0xffff);
	check_broken(VIRTQ_BAD_INDEX);
}

static void link_beyond_the_table(void)
{
	setup(false, false);
	vring_add_bytes(&ring, 1, 0);
	ring.desc[0].flags = VIRTQ_DESC_F_NEXT;
	ring.desc[0].next = SIZE;
	check_broken(VIRTQ_BAD_INDEX);
}

static void loop(void)
{
	setup(false, false);
	vring_add_bytes(&ring, 1, 0);
	ring.desc[0].flags = VIRTQ_DESC_F_NEXT;
	ring.desc[0].next = 0;
	check_broken(VIRTQ_BAD_CHAIN);
	setup(false, false);
	vring_add_bytes(&ring, 0, 0); /* even if it gets no longer */
	ring.desc[0].flags = VIRTQ_DESC_F_NEXT;
	ring.desc[0].next = 0;
	check_broken(VIRTQ_BAD_CHAIN);
}

static void chain_longer_than_any_frame(void)
{
	setup(false, false);
	for (unsigned i = 0; i < SIZE; i++)
		ring.desc[i] = (struct virtq_desc){ VRAM_GUEST, 1 << 20,
						    VIRTQ_DESC_F_NEXT,
						    (i + 1) % SIZE };
	vring_offer(&ring, 0);
	check_broken(VIRTQ_BAD_CHAIN);
	CHECK(chain.n <= VIRTQ_CHAIN_MAX);
}

static void wrong_direction(void)
{
	setup(false, false);
	vring_add_bytes(&ring, 1, VIRTQ_DESC_F_WRITE);
	check_broken(VIRTQ_BAD_DIRECTION);
	setup(false, false);
	vring_add_bytes(&ring, 1, 0);
	CHECK_EQ(virtq_next(&q, true, &chain), -EBADMSG);
	check_broken(VIRTQ_BAD_DIRECTION);
}

static void address_outside_memory(void)
{
	static const struct virtq_desc bad[] = {
		{ 0, 1, 0, 0 },
		{ VRAM_GUEST - 1, 1, 0, 0 },
		{ VRAM_GUEST, (1 << 20) + 1, 0, 0 },
		{ VRAM_GUEST + (1 << 20) - 1, 2, 0, 0 },
		{ VRAM_GUEST, UINT32_MAX, 0, 0 },
		{ UINT64_MAX, 2, 0, 0 },
		{ UINT64_MAX - 9, UINT32_MAX, 0, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		setup(false, false);
		ring.desc[0] = bad[i];
		vring_offer(&ring, 0);
		check_broken(VIRTQ_BAD_ADDRESS);
	}
}

/* break_indirect() - Offer one by a table, spoil the descriptor first */
static void break_indirect(uint32_t len, uint16_t flags, uint64_t addr,
			   enum virtq_fault fault)
{
	struct iovec piece = { NULL, 10 };

	setup(false, true);
	piece.iov_base = vram_take(&ram, 10);
	vring_add_indirect(&ring, &piece, 1, 0);
	ring.desc[0].len = len;
	ring.desc[0].flags |= flags;
	if (addr)
		ring.desc[0].addr = addr;
	check_broken(fault);
}

static void indirect_tables_that_are_none(void)
{
	uint64_t end = VRAM_GUEST + (1 << 20);

	break_indirect(0, 0, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(15, 0, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(17, 0, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(16 * 1025, 0, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(0xfffffff0, 0, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(16, VIRTQ_DESC_F_NEXT, 0, VIRTQ_BAD_INDIRECT);
	break_indirect(16, 0, end - 8, VIRTQ_BAD_ADDRESS);
	break_indirect(16, 0, 8, VIRTQ_BAD_ADDRESS);
}

static void indirect_table_within_another_or_not_negotiated(void)
{
	struct iovec piece = { NULL, 16 };
	struct virtq_desc *table;

	setup(false, true);
	piece.iov_base = vram_take(&ram, 16);
	vring_add_indirect(&ring, &piece, 1, 0);
	table = vram_at(&ram, ring.desc[0].addr);
	table->flags = VIRTQ_DESC_F_INDIRECT;
	check_broken(VIRTQ_BAD_INDIRECT);

	setup(false, true); /* the ring's own table counts as another */
	ring.desc[0] = (struct virtq_desc){ vram_guest(&ram, ring.desc),
					    16 * SIZE, VIRTQ_DESC_F_INDIRECT,
					    0 };
	vring_offer(&ring, 0);
	check_broken(VIRTQ_BAD_INDIRECT);

	setup(false, false);
	vring_add_indirect(&ring, &piece, 1, 0);
	check_broken(VIRTQ_BAD_INDIRECT);
}

static void link_beyond_an_indirect_table(void)
{
	struct iovec piece = { NULL, 16 };
	struct virtq_desc *table;

	setup(false, true);
	piece.iov_base = vram_take(&ram, 16);
	vring_add_indirect(&ring, &piece, 1, 0);
	table = vram_at(&ram, ring.desc[0].addr);
	table->flags = VIRTQ_DESC_F_NEXT;
	table->next = 1; /* valid in the ring's table, not in this one */
	check_broken(VIRTQ_BAD_INDEX);
}

/* Where rings may be */

static int try_start(uint32_t size, uint64_t desc, uint64_t avail,
		     uint64_t used)
{
	struct virtq_addr addr = { size, VRAM_USER + desc, VRAM_USER + avail,
				   VRAM_USER + used };

	return virtq_start(&q, &mem, &addr, 0, false, false);
}

static void rings_must_be_aligned_and_within_memory(void)
{
	const uint64_t end = 1 << 20;

	setup(false, false);
	CHECK_EQ(try_start(SIZE, 0, 4096, 8192), 0);
	CHECK_EQ(try_start(SIZE, 8, 4096, 8192), -EINVAL);
	CHECK_EQ(try_start(SIZE, 0, 4097, 8192), -EINVAL);
	CHECK_EQ(try_start(SIZE, 0, 4096, 8194), -EINVAL);
	CHECK_EQ(try_start(SIZE, end - 16 * SIZE, 0, 4096), 0);
	CHECK_EQ(try_start(SIZE, end - 16 * SIZE + 16, 0, 4096), -EFAULT);
	CHECK_EQ(try_start(SIZE, 0, end - 6 - 2 * SIZE, 4096), 0);
	CHECK_EQ(try_start(SIZE, 0, end - 4 - 2 * SIZE, 4096), -EFAULT);
	CHECK_EQ(try_start(SIZE, 0, 4096, end - 8 - 8 * SIZE), 0);
	CHECK_EQ(try_start(SIZE, 0, 4096, end - 4 - 8 * SIZE), -EFAULT);
	CHECK_EQ(try_start(SIZE, (uint64_t)-16, 4096, 8192), -EFAULT);
	teardown();
}

static void sizes_are_powers_of_two(void)
{
	static const uint32_t bad[] = { 0, 3, 1000, 32769, 65536, 0x80000000 };

	setup(false, false);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(try_start(bad[i], 0, 4096, 8192), -EINVAL);
	CHECK_EQ(try_start(1, 0, 4096, 8192), 0);
	CHECK_EQ(try_start(1024, 0, 0x10000, 0x20000), 0);
	CHECK_EQ(try_start(VIRTQ_SIZE_MAX, 0, 0x80000, 0xa0000), 0);
	teardown();
}

static void rings_outside_new_memory_are_not_touched(void)
{
	struct guest_region r;

	setup(false, false);
	vring_add_bytes(&ring, 1, 0);
	r = vram_region(&ram);
	r.user += ram.size;
	CHECK_EQ(guest_mem_set(&mem, &r, 1), 0);
	CHECK_EQ(virtq_remap(&q), -EFAULT);
	CHECK_EQ(q.fault, VIRTQ_BAD_RING);
	CHECK_EQ(virtq_next(&q, false, &chain), -EBADMSG);
	q.pending = 1;
	virtq_publish(&q);
	virtq_kicks_off(&q);
	CHECK(!virtq_wants_call(&q));
	CHECK(!virtq_kicks_on(&q));
	teardown();
}

static void run_honest(void)
{
	RUN(chains_come_in_order_with_all_their_pieces);
	RUN(indices_wrap);
	RUN(rewinding_gives_the_same_chains_again);
	RUN(indirect_table_is_followed);
	RUN(buffer_across_regions_comes_in_pieces);
	RUN(empty_pieces_are_passed_over);
	RUN(calls_follow_the_flag);
	RUN(calls_follow_the_event_index);
	RUN(kicks_are_asked_for_by_the_flag);
	RUN(kicks_are_asked_for_by_the_event_index);
}

int main(void)
{
	run_honest();
	RUN(more_entries_than_the_ring_has);
	RUN(head_beyond_the_table);
	RUN(link_beyond_the_table);
	RUN(loop);
	RUN(chain_longer_than_any_frame);
	RUN(wrong_direction);
	RUN(address_outside_memory);
	RUN(indirect_tables_that_are_none);
	RUN(indirect_table_within_another_or_not_negotiated);
	RUN(link_beyond_an_indirect_table);
	RUN(rings_must_be_aligned_and_within_memory);
	RUN(sizes_are_powers_of_two);
	RUN(rings_outside_new_memory_are_not_touched);
	return 0;
}
