/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames into the buffers of a virtual machine: offloads, and too few buffers */

#include <errno.h>

#include "base/checksum.h"
#include "vhost.h"

#define HEADERS 54U /* Ethernet, IPv4, TCP */
#define FLAGS	(VHOST_FEATURES & ~VHOST_F_EVENT_IDX)
#define PLAIN	VHOST_F_VERSION_1
#define TO	VHOST_TO_GUEST

static struct vhost h;
static uint8_t buf[70000];
static struct vnet_hdr vh;

static size_t recv_one(unsigned *ret_bufs)
{
	return vhost_recv(&h, &vh, buf, sizeof(buf), ret_bufs);
}

static void super_segment_is_left_to_a_guest_that_takes_it(void)
{
	unsigned bufs;

	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 50, 1536);
	CHECK_EQ(vhost_segment(&h, 60000, 1448, 5), 0);
	CHECK_EQ(recv_one(NULL), 0); /* not before the flush */
	vhost_show(&h);
	CHECK_EQ(vhost_heard(h.call[TO]), 1);
	CHECK_EQ(recv_one(&bufs), HEADERS + 60000);
	CHECK_EQ(bufs, (60000 + HEADERS + 12 + 1535) / 1536);
	CHECK_EQ(vh.flags, VNET_F_NEEDS_CSUM);
	CHECK_EQ(vh.gso_type, VNET_GSO_TCPV4);
	CHECK_EQ(vh.gso_size, 1448);
	CHECK(vhost_payload_is(buf + HEADERS, 0, 60000, 5));
	CHECK_EQ(recv_one(NULL), 0);
	vhost_teardown(&h);
}

static void mergeable_buffers_may_be_tiny_and_scattered(void)
{
	struct iovec piece[4];
	unsigned bufs;

	vhost_setup(&h, FLAGS);
	for (unsigned i = 0; i < 15; i++) {
		for (unsigned k = 0; k < 4; k++)
			piece[k] =
				(struct iovec){ vram_take(&h.ram, 16), 3 + k };
		vring_add(&h.ring[TO], piece, 4, VIRTQ_DESC_F_WRITE);
	}
	CHECK_EQ(vhost_segment(&h, 200, 0, 5), 0);
	vhost_show(&h);
	CHECK_EQ(recv_one(&bufs), HEADERS + 200);
	CHECK_EQ(bufs, (200 + HEADERS + 12 + 17) / 18);
	CHECK(vhost_payload_is(buf + HEADERS, 0, 200, 5));
	vhost_teardown(&h);
}

/* check_cut() - Receive what became of a super-segment */
static void check_cut(uint32_t len, uint32_t mss, uint8_t seed)
{
	for (uint32_t done = 0; done < len;) {
		uint32_t part = MIN(len - done, mss);
		const struct tcp_hdr *th = (const void *)(buf + 34);
		uint64_t sum;

		CHECK_EQ(recv_one(NULL), HEADERS + part);
		CHECK_EQ(vh.flags | vh.gso_type, 0);
		CHECK_EQ(ntohl(th->seq), done);
		sum = (uint64_t)htons(IPPROTO_TCP) +
		      htons((uint16_t)(20 + part));
		sum = csum_add(buf + 26, 8, sum);
		CHECK_EQ(csum_fold(csum_add(buf + 34, 20 + part, sum)), 0xffff);
		CHECK(vhost_payload_is(buf + HEADERS, done, part, seed));
		done += part;
	}
}

static void super_segment_is_cut_for_a_guest_that_does_not(void)
{
	static const uint64_t features[] = {
		0,
		PLAIN,
		VHOST_F_MRG_RXBUF,
		PLAIN | VHOST_F_GUEST_CSUM,
		PLAIN | VHOST_F_GUEST_CSUM | VHOST_F_GUEST_TSO6,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		vhost_setup(&h, features[i]);
		vhost_offer(&h, 60, 1600);
		CHECK_EQ(vhost_segment(&h, 60000, 1448, 5), 0);
		vhost_show(&h);
		check_cut(60000, 1448, 5);
		CHECK_EQ(recv_one(NULL), 0);
		vhost_teardown(&h);
	}
}

static void checksum_is_left_to_a_guest_that_takes_it(void)
{
	vhost_setup(&h, PLAIN | VHOST_F_GUEST_CSUM);
	vhost_offer(&h, 2, 1600);
	CHECK_EQ(vhost_segment(&h, 100, 0, 5), 0);
	vhost_show(&h);
	CHECK_EQ(recv_one(NULL), HEADERS + 100);
	CHECK_EQ(vh.flags, VNET_F_NEEDS_CSUM);
	CHECK_EQ(vh.csum_start, 34);
	vhost_teardown(&h);
}

/* Full rings */

static void frame_without_room_waits_and_nothing_of_it_shows(void)
{
	unsigned bufs;

	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 60, 1536);
	CHECK_EQ(vhost_segment(&h, 60000, 1448, 1), 0);
	CHECK(!h.tap.blocked);
	CHECK_EQ(vhost_segment(&h, 60000, 1448, 2), 0); /* 19 are left, of 40 */
	CHECK(h.tap.blocked);
	CHECK_EQ(h.cnt.n[CNT_TAP_BLOCKED], 1);
	CHECK_EQ(vhost_segment(&h, 10, 0, 3),
		 0); /* behind it, though it fits */
	vhost_show(&h);
	CHECK_EQ(recv_one(&bufs), HEADERS + 60000);
	CHECK_EQ(recv_one(NULL), 0);
	CHECK_EQ(h.ring[TO].used->flags, 0); /* kicks are asked for */

	vhost_offer(&h, 4, 1536); /* still too few */
	vhost_kick(&h, TO);
	tap_room(&h.tap);
	CHECK(h.tap.blocked);
	CHECK_EQ(vhost_heard(h.kick[TO]), 0);
	vhost_offer(&h, 37, 1536);
	vhost_kick(&h, TO);
	tap_room(&h.tap);
	CHECK(!h.tap.blocked);
	vhost_show(&h);
	CHECK_EQ(recv_one(NULL), HEADERS + 60000);
	CHECK(vhost_payload_is(buf + HEADERS, 0, 60000, 2));
	CHECK_EQ(recv_one(NULL), HEADERS + 10);
	CHECK_EQ(recv_one(NULL), 0);
	CHECK_EQ(h.cnt.n[CNT_TAP_BLOCKED], 1);
	CHECK_EQ(vhost_segment(&h, 10, 0, 4), 0);
	CHECK_EQ(h.ring[TO].used->flags, VIRTQ_USED_F_NO_NOTIFY);
	vhost_teardown(&h);
}

static void cut_frame_goes_on_where_it_stopped(void)
{
	uint32_t got = 0;

	vhost_setup(&h, PLAIN);
	vhost_offer(&h, 7, 1600);
	CHECK_EQ(vhost_segment(&h, 60000, 1000, 7), 0);
	CHECK(h.tap.blocked);
	while (got < 60) {
		uint32_t before = got;

		vhost_show(&h);
		while (recv_one(NULL)) {
			const struct tcp_hdr *th = (const void *)(buf + 34);

			CHECK_EQ(ntohl(th->seq), 1000 * got);
			CHECK(vhost_payload_is(buf + HEADERS, 1000 * got++,
					       1000, 7));
		}
		CHECK(got > before);
		vhost_offer(&h, 7, 1600);
		tap_room(&h.tap);
	}
	CHECK(!h.tap.blocked);
	vhost_teardown(&h);
}

static void super_segment_is_cut_when_buffers_can_never_hold_it(void)
{
	uint32_t left = 60000;

	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 10, 1536); /* all that this guest ever offers */
	CHECK_EQ(vhost_segment(&h, 60000, 1448, 5), 0);
	while (left) {
		vhost_show(&h);
		for (size_t n; (n = recv_one(NULL));) {
			CHECK(vhost_payload_is(buf + HEADERS, 60000 - left,
					       (uint32_t)n - HEADERS, 5));
			left -= (uint32_t)n - HEADERS;
			vhost_offer(&h, 1, 1536);
		}
		tap_room(&h.tap);
	}
	CHECK(!h.tap.blocked);
	vhost_teardown(&h);
}

static void frame_that_no_buffer_holds_is_refused_and_undone(void)
{
	vhost_setup(&h, PLAIN);
	vhost_offer(&h, 3, 500);
	CHECK_EQ(vhost_segment(&h, 1000, 0, 1), -EMSGSIZE);
	CHECK(!h.tap.blocked);
	CHECK_EQ(vhost_segment(&h, 100, 0, 2), 0);
	vhost_show(&h);
	CHECK_EQ(recv_one(NULL), HEADERS + 100);
	CHECK_EQ(recv_one(NULL), 0);
	CHECK_EQ(h.cnt.n[CNT_TAP_TX_ERRORS], 1);
	vhost_teardown(&h);
}

static void waiting_frames_are_bounded(void)
{
	int n = 0;

	vhost_setup(&h, FLAGS);
	while (!vhost_segment(&h, 60000, 1448, 0))
		n++;
	CHECK_EQ(n, BACKLOG_MAX / (60000 + HEADERS + 32));
	CHECK_EQ(h.cnt.n[CNT_TAP_TX_ERRORS], 1);
	vhost_teardown(&h);
}

static void buffers_that_came_too_early_for_a_kick_are_found(void)
{
	vhost_setup(&h, VHOST_FEATURES);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	CHECK(h.tap.blocked);
	CHECK_EQ(*(uint16_t *)(void *)&h.ring[TO].used->ring[VHOST_SIZE], 0);
	vhost_offer(&h, 1, 1000);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	tap_room(&h.tap);
	CHECK(h.tap.blocked); /* one went, the other waits */
	CHECK_EQ(*(uint16_t *)(void *)&h.ring[TO].used->ring[VHOST_SIZE], 1);
	vhost_teardown(&h);
}

int main(void)
{
	RUN(super_segment_is_left_to_a_guest_that_takes_it);
	RUN(mergeable_buffers_may_be_tiny_and_scattered);
	RUN(super_segment_is_cut_for_a_guest_that_does_not);
	RUN(checksum_is_left_to_a_guest_that_takes_it);
	RUN(frame_without_room_waits_and_nothing_of_it_shows);
	RUN(cut_frame_goes_on_where_it_stopped);
	RUN(super_segment_is_cut_when_buffers_can_never_hold_it);
	RUN(frame_that_no_buffer_holds_is_refused_and_undone);
	RUN(waiting_frames_are_bounded);
	RUN(buffers_that_came_too_early_for_a_kick_are_found);
	return 0;
}
