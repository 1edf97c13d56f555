/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stage of pending misses, and random use of it against a model */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "table.h"
#include "table/stage.h"

static struct stage s;
static struct counters cnt;

static void setup(void)
{
	struct siphash_key key = { { 1, 2 } };

	cnt = (struct counters){ 0 };
	CHECK_EQ(stage_init(&s, &key, &cnt), 0);
}

static struct miss *add(uint32_t number, uint64_t now)
{
	struct flowside key = table_side(number);

	return stage_add(&s, IPPROTO_UDP, PIF_TAP, &key, -1, -1, now);
}

static struct miss *find(uint32_t number)
{
	struct flowside key = table_side(number);

	return stage_find(&s, IPPROTO_UDP, PIF_TAP, &key);
}

static void test_miss_is_found_by_its_whole_key(void)
{
	struct flowside key = table_side(1);
	struct miss *m;

	setup();
	CHECK(!find(1));
	m = add(1, 0);
	CHECK(find(1) == m);
	CHECK(!find(2));
	CHECK(!stage_find(&s, IPPROTO_TCP, PIF_TAP, &key));
	CHECK(!stage_find(&s, IPPROTO_UDP, PIF_HOST, &key));
	key.oport++;
	CHECK(!stage_find(&s, IPPROTO_UDP, PIF_TAP, &key));
	stage_release(&s, m);
	CHECK(!find(1));
	stage_free(&s);
}

static void test_late_answer_hits_nothing(void)
{
	struct miss *m;
	uint64_t id;

	setup();
	m = add(1, 0);
	id = stage_miss_id(&s, m);
	CHECK(stage_get(&s, id) == m);
	stage_release(&s, m);
	CHECK(!stage_get(&s, id));
	CHECK(add(2, 0) == m); /* the same slot */
	CHECK(!stage_get(&s, id));
	CHECK(!stage_get(&s, STAGE_MAX));
	CHECK(!stage_get(&s, UINT64_MAX));
	stage_free(&s);
}

static void test_full_stage_refuses_and_counts(void)
{
	setup();
	for (uint32_t i = 0; i < STAGE_MAX; i++)
		CHECK(add(i, 0));
	CHECK(!add(STAGE_MAX, 0));
	CHECK_EQ(cnt.n[CNT_DROP_STAGE_FULL], 1);
	for (uint32_t i = 0; i < STAGE_MAX; i++)
		CHECK(stage_take_untold(&s) == find(i));
	CHECK(!stage_take_untold(&s));
	stage_free(&s);
}

static void test_parked_items_come_back_in_order(void)
{
	struct vnet_hdr vh = { .flags = 1, .gso_size = 1460 };
	struct stage_item *item;
	uint8_t frame[1514];
	struct miss *m;
	uint32_t pos = 0;

	setup();
	m = add(1, 0);
	CHECK(!stage_next(&s, m, &pos));
	for (uint32_t i = 1; i < 40; i++) {
		memset(frame, (int)i, sizeof(frame));
		CHECK_EQ(stage_park(&s, m, frame, i * 37, i % 2 ? &vh : NULL),
			 0);
	}
	CHECK_EQ(m->items, 39);
	for (uint32_t i = 1; i < 40; i++) {
		item = stage_next(&s, m, &pos);
		CHECK_EQ(item->len, i * 37);
		CHECK_EQ(item->vh.gso_size, i % 2 ? 1460 : 0);
		CHECK(stage_item_data(item)[0] == i &&
		      stage_item_data(item)[item->len - 1] == i);
	}
	CHECK(!stage_next(&s, m, &pos));
	stage_free(&s);
}

static void test_buffer_is_bounded(void)
{
	static uint8_t big[STAGE_BUF + 1];
	struct miss *m;

	setup();
	m = add(1, 0);
	CHECK_EQ(stage_park(&s, m, big, sizeof(big), NULL), -ENOBUFS);
	CHECK_EQ(stage_park(&s, m, big, UINT32_MAX, NULL), -ENOBUFS);
	CHECK_EQ(m->buf, POOL_NONE);
	CHECK_EQ(stage_park(&s, m, big, 65549, NULL), 0);
	CHECK_EQ(stage_park(&s, m, big, 65549, NULL), -ENOBUFS);
	CHECK_EQ(stage_park(&s, m, big, 1000, NULL), 0);
	CHECK_EQ(s.bufs.used, 1);
	stage_release(&s, m);
	CHECK_EQ(s.bufs.used, 0);
	stage_free(&s);
}

static void test_release_closes_the_socket_unless_taken(void)
{
	int fds[2] = { open("/dev/null", O_RDONLY),
		       open("/dev/null", O_RDONLY) };
	struct flowside key = table_side(1);
	struct miss *m;

	setup();
	m = stage_add(&s, IPPROTO_TCP, PIF_HOST, &key, 3, fds[0], 0);
	CHECK_EQ(m->listener, 3);
	stage_release(&s, m);
	CHECK(fcntl(fds[0], F_GETFD) < 0);

	m = stage_add(&s, IPPROTO_TCP, PIF_HOST, &key, 3, fds[1], 0);
	m->fd = -1;
	stage_release(&s, m);
	CHECK(fcntl(fds[1], F_GETFD) >= 0);
	stage_add(&s, IPPROTO_TCP, PIF_HOST, &key, 3, fds[1], 0);
	stage_free(&s);
	CHECK(fcntl(fds[1], F_GETFD) < 0);
}

static void test_the_outside_has_a_share(void)
{
	struct flowside key;

	setup();
	for (uint32_t i = 1; i <= STAGE_OUTSIDE + 1; i++) {
		key = table_side(i);
		CHECK_EQ(!stage_add(&s, IPPROTO_UDP, PIF_HOST, &key, 1, -1, 0),
			 i > STAGE_OUTSIDE);
	}
	/* The rest is the guest's, and its namespace's */
	CHECK(add(1, 0));
	key = table_side(2);
	CHECK(stage_add(&s, IPPROTO_UDP, PIF_SPLICE, &key, 1, -1, 0));
	key = table_side(1);
	stage_release(&s, stage_find(&s, IPPROTO_UDP, PIF_HOST, &key));
	CHECK(stage_add(&s, IPPROTO_UDP, PIF_HOST, &key, 1, -1, 0));
	stage_free(&s);
}

static void test_many_deadlines_pass_in_pieces(void)
{
	unsigned n = 0, calls = 0;

	setup();
	for (uint32_t i = 1; i <= STAGE_MAX; i++)
		add(i, 0);
	for (; s.pending; calls++) {
		unsigned at_once = stage_expire(&s, STAGE_DEADLINE);

		CHECK(at_once && at_once <= STAGE_MAX / 4);
		n += at_once;
	}
	CHECK_EQ(n, STAGE_MAX);
	stage_free(&s);
}

static void test_deadline_passes(void)
{
	setup();
	CHECK_EQ(stage_expire(&s, UINT64_MAX - 1), 0);
	add(1, 100);
	add(2, 200);
	add(3, 300);
	CHECK_EQ(stage_expire(&s, 99 + STAGE_DEADLINE), 0);
	CHECK_EQ(stage_expire(&s, 200 + STAGE_DEADLINE), 2);
	CHECK(!find(1) && !find(2) && find(3));
	/* Untold ones that expired are not told any more */
	CHECK(stage_take_untold(&s) == find(3));
	CHECK(!stage_take_untold(&s));
	CHECK_EQ(stage_expire(&s, 300 + STAGE_DEADLINE), 1);
	CHECK_EQ(cnt.n[CNT_MISS_EXPIRED], 3);
	CHECK_EQ(s.pending, 0);
	stage_free(&s);
}

static void test_random_operations_match_the_model(void)
{
	enum { KEYS = 1500 }; /* more than fit */
	static uint64_t ids[KEYS];
	struct test_random r = { 11 };
	uint32_t pending = 0;

	setup();
	for (int op = 0; op < 200000; op++) {
		uint32_t k = test_below(&r, KEYS);
		struct miss *m = find(k);

		CHECK_EQ(!m, !ids[k]);
		if (m)
			CHECK(stage_get(&s, ids[k]) == m);
		/* Tides, as in test_flow_table.c */
		if (!m && test_below(&r, 8) < (op / 10000 % 2 ? 8 : 2)) {
			m = add(k, 0);
			CHECK_EQ(!m, pending == STAGE_MAX);
			if (!m)
				continue;
			ids[k] = stage_miss_id(&s, m);
			pending++;
		} else if (m && test_below(&r, 2)) {
			stage_release(&s, m);
			ids[k] = 0;
			pending--;
		} else if (!test_below(&r, 3)) {
			m = stage_take_untold(&s);
			CHECK(!m || (m->used && m->told));
		}
		CHECK_EQ(s.pending, pending);
	}
	stage_free(&s);
}

int main(void)
{
	RUN(test_miss_is_found_by_its_whole_key);
	RUN(test_late_answer_hits_nothing);
	RUN(test_full_stage_refuses_and_counts);
	RUN(test_parked_items_come_back_in_order);
	RUN(test_buffer_is_bounded);
	RUN(test_release_closes_the_socket_unless_taken);
	RUN(test_the_outside_has_a_share);
	RUN(test_many_deadlines_pass_in_pieces);
	RUN(test_deadline_passes);
	RUN(test_random_operations_match_the_model);
	return 0;
}
