/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tap of rings: frames both ways, full rings, lying ones, lost memory */

#include <errno.h>

#include "base/checksum.h"
#include "vhost.h"

#define HEADERS 54U /* Ethernet, IPv4, TCP */
#define FLAGS	(VHOST_FEATURES & ~VHOST_F_EVENT_IDX)
#define PLAIN	VHOST_F_VERSION_1
#define FROM	VHOST_FROM_GUEST
#define TO	VHOST_TO_GUEST

static struct vhost h;
static uint8_t buf[70000];
static struct vnet_hdr vh;

/* From the guest */

/* guest_sends() - One chain of @n pieces: header and a frame of @len bytes */
static void guest_sends(uint32_t len, unsigned n, uint8_t mark)
{
	uint32_t hdr_len = vhost_hdr_len(&h), total = hdr_len + len;
	uint8_t *p = vram_take(&h.ram, total);
	struct iovec piece[8];

	memset(p, 0, hdr_len);
	memset(p + hdr_len, mark, len);
	for (unsigned i = 0; i < n; i++) {
		uint32_t from = total * i / n, to = total * (i + 1) / n;

		piece[i] = (struct iovec){ p + from, to - from };
	}
	vring_add(&h.ring[FROM], piece, n, 0);
}

static void frames_come_whole_however_they_are_cut(void)
{
	struct virtq_used_elem e;

	for (unsigned n = 1; n <= 5; n++) {
		vhost_setup(&h, FLAGS);
		guest_sends(60, n, 1);
		guest_sends(1514, n, 2);
		guest_sends(65549, n, 3);
		CHECK_EQ(tap_read(&h.tap), 3);
		CHECK(h.tap.drained && !h.tap.more);
		CHECK_EQ(h.tap.rx[0].len, 60);
		CHECK_EQ(h.tap.rx[1].len, 1514);
		CHECK_EQ(h.tap.rx[2].len, 65549);
		CHECK_EQ(h.tap.rx[0].data[59], 1);
		CHECK_EQ(h.tap.rx[1].data[0], 2);
		CHECK_EQ(h.tap.rx[2].data[65548], 3);
		for (unsigned i = 0; i < 3; i++) {
			CHECK(vring_used(&h.ring[FROM], &e));
			CHECK_EQ(e.id, i * n);
			CHECK_EQ(e.len, 0);
		}
		CHECK(!vring_used(&h.ring[FROM], &e));
		CHECK_EQ(tap_read(&h.tap), 0);
		vhost_teardown(&h);
	}
}

static void header_is_translated_and_only_its_flag_believed(void)
{
	const struct vnet_hdr sent = {
		.flags = VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID,
		.gso_type = VNET_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16,
	};

	vhost_setup(&h, FLAGS);
	guest_sends(3000, 2, 1);
	memcpy(vram_at(&h.ram, h.ring[FROM].desc[0].addr), &sent, sizeof(sent));
	CHECK_EQ(tap_read(&h.tap), 1);
	vh = h.tap.rx[0].vh;
	CHECK_EQ(vh.flags, VNET_F_NEEDS_CSUM);
	CHECK_EQ(vh.gso_type, VNET_GSO_TCPV4);
	CHECK_EQ(vh.gso_size, 1448);
	CHECK_EQ(vh.csum_start, 34);
	CHECK_EQ(vh.csum_offset, 16);
	vhost_teardown(&h);

	vhost_setup(&h, PLAIN);
	guest_sends(3000, 2, 1);
	memcpy(vram_at(&h.ram, h.ring[FROM].desc[0].addr), &sent, sizeof(sent));
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(h.tap.rx[0].vh.flags, 0);
	vhost_teardown(&h);
}

static void header_is_short_without_buffer_count(void)
{
	vhost_setup(&h, 0);
	CHECK_EQ(vhost_hdr_len(&h), 10);
	guest_sends(100, 1, 9);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(h.tap.rx[0].len, 100);
	CHECK_EQ(h.tap.rx[0].data[0], 9);
	vhost_teardown(&h);
	vhost_setup(&h, VHOST_F_MRG_RXBUF);
	CHECK_EQ(vhost_hdr_len(&h), 12);
	vhost_teardown(&h);
}

static void chains_that_are_no_frames_are_counted_and_given_back(void)
{
	struct virtq_used_elem e;

	vhost_setup(&h, FLAGS);
	vring_add_bytes(&h.ring[FROM], 11, 0);
	vring_add_bytes(&h.ring[FROM], 70000, 0);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(h.cnt.n[CNT_DROP_VHOST_LENGTH], 2);
	for (int i = 0; i < 3; i++)
		CHECK(vring_used(&h.ring[FROM], &e));
	vhost_teardown(&h);
}

static void kick_stays_until_the_ring_is_empty(void)
{
	vhost_setup(&h, FLAGS);
	(void)vhost_heard(h.kick[FROM]);
	for (int i = 0; i < 5; i++)
		guest_sends(40000, 1, (uint8_t)i);
	vhost_kick(&h, FROM);
	CHECK_EQ(tap_read(&h.tap), 4); /* 128 KiB */
	CHECK(!h.tap.drained);
	CHECK_EQ(h.ring[FROM].used->flags, VIRTQ_USED_F_NO_NOTIFY);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK(h.tap.drained);
	CHECK_EQ(h.ring[FROM].used->flags, 0);
	CHECK_EQ(vhost_heard(h.kick[FROM]), 0);
	vhost_teardown(&h);
}

static void worst_batch_fits_the_buffer(void)
{
	vhost_setup(&h, FLAGS);
	(void)vhost_stop(&h.tap, FROM);
	vring_setup(&h.ring[FROM], &h.ram, 256);
	vhost_start_ring(&h, FROM);
	/* Each ends one byte behind a line, and all stay below 128 KiB */
	for (int i = 0; i < 127; i++)
		guest_sends(i < 33 ? 1077 : 1013, 1, 1);
	guest_sends(TAP_FRAME_MAX + 40, 1, 2);
	CHECK_EQ(tap_read(&h.tap), 128);
	CHECK_EQ(h.tap.rx[127].data[TAP_FRAME_MAX + 39], 2);
	vhost_teardown(&h);
}

static void disabled_ring_is_emptied_into_the_void(void)
{
	struct virtq_used_elem e;

	vhost_setup(&h, FLAGS);
	vhost_enable(&h.tap, FROM, false);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 0);
	CHECK(vring_used(&h.ring[FROM], &e));
	CHECK_EQ(h.cnt.n[CNT_DROP_VHOST_DISABLED], 1);
	vhost_enable(&h.tap, FROM, true);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);
	vhost_teardown(&h);
}

static void sent_buffers_are_told_once_a_flush(void)
{
	vhost_setup(&h, FLAGS);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(vhost_heard(h.call[FROM]), 0);
	guest_sends(60, 1, 1);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 2);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(vhost_heard(h.call[FROM]), 1);
	h.ring[FROM].avail->flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(vhost_heard(h.call[FROM]), 0);
	CHECK_EQ(h.cnt.n[CNT_VHOST_CALLS], 1);
	vhost_teardown(&h);
}

/* To the guest */

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
	CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(tap_flush(&h.tap), 0);
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
		CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(tap_flush(&h.tap), 0);
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

		CHECK_EQ(tap_flush(&h.tap), 0);
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
		CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(tap_flush(&h.tap), 0);
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
	CHECK_EQ(n, VHOST_KEEP_MAX / (60000 + HEADERS + 32));
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

/* Who lies, and who goes away */

static void lying_ring_stops_alone_and_is_told_once(void)
{
	struct log_record r;

	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 5, 2000);
	guest_sends(60, 1, 1);
	vring_offer(&h.ring[FROM], 999);
	CHECK_EQ(tap_read(&h.tap), 1); /* what was before it counts */
	CHECK_EQ(h.cnt.n[CNT_VHOST_BROKEN], 1);
	CHECK(flow_log_get(&h.log, &r));
	CHECK_EQ(r.event, LOG_VHOST_BROKEN);
	CHECK_EQ(r.arg[0], FROM);
	CHECK_EQ(r.arg[1], VIRTQ_BAD_INDEX);
	vhost_kick(&h, FROM);
	CHECK_EQ(tap_read(&h.tap), 0);
	CHECK_EQ(vhost_heard(h.kick[FROM]), 0); /* no event without end */
	CHECK_EQ(h.cnt.n[CNT_VHOST_BROKEN], 1);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(recv_one(NULL), HEADERS + 100);
	vhost_teardown(&h);
}

static void lying_receive_ring_blocks_the_tap(void)
{
	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 1, 2000);
	h.ring[TO].desc[0].addr = 1;
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), -EBADMSG);
	CHECK(h.tap.blocked);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), -ENOTCONN);
	tap_room(&h.tap);
	CHECK(h.tap.blocked);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);

	(void)vhost_stop(&h.tap, TO); /* a driver that starts anew is welcome */
	h.ring[TO].desc[0].addr = vram_guest(&h.ram, vram_take(&h.ram, 2000));
	h.ring[TO].avail->idx = 0;
	vhost_start_ring(&h, TO);
	CHECK(!h.tap.blocked);
	h.ring[TO].avail->idx = 1;
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	vhost_teardown(&h);
}

static void buffer_shorter_than_a_header_breaks_the_ring(void)
{
	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 3, 11);
	CHECK_EQ(vhost_segment(&h, 1, 0, 1), -EBADMSG);
	CHECK_EQ(h.tap.vhost->queue[TO].vq.fault, VIRTQ_BAD_LENGTH);
	vhost_teardown(&h);
}

static void truncated_memory_ends_the_session(void)
{
	for (int writes = 0; writes < 2; writes++) {
		vhost_setup(&h, FLAGS);
		vhost_offer(&h, 3, 2000);
		guest_sends(60, 1, 1);
		CHECK_EQ(ftruncate(h.ram.fd, 0), 0);
		if (writes) {
			(void)vhost_segment(&h, 100, 0, 1);
			CHECK(h.tap.more && h.tap.blocked);
		}
		CHECK_EQ(tap_read(&h.tap), -EFAULT);
		CHECK_EQ(h.cnt.n[CNT_VHOST_MEMORY_LOST], 1);
		tap_detach(&h.tap);
		CHECK_EQ(tap_read(&h.tap), 0);
		CHECK_EQ(vhost_segment(&h, 100, 0, 1), -ENOTCONN);
		CHECK_EQ(ftruncate(h.ram.fd, VHOST_RAM), 0);
		vhost_teardown(&h);
	}
}

static void kick_that_is_at_its_end_ends_the_session(void)
{
	struct virtq_addr addr;
	int fd[2];

	vhost_setup(&h, FLAGS);
	(void)vhost_stop(&h.tap, FROM);
	CHECK_EQ(pipe(fd), 0);
	addr = vring_addr(&h.ring[FROM]);
	CHECK_EQ(vhost_start(&h.tap, FROM, &addr, 0, fd[0], -1), 0);
	close(fd[1]);
	CHECK_EQ(tap_read(&h.tap), -EPROTO);
	vhost_teardown(&h);
}

static void next_guest_finds_nothing_of_the_last(void)
{
	vhost_setup(&h, FLAGS);
	CHECK_EQ(vhost_segment(&h, 1000, 0, 1), 0); /* waits */
	tap_detach(&h.tap);
	CHECK(h.tap.blocked && h.tap.fd < 0);
	CHECK_EQ(h.tap.vhost->mem.n, 0);
	CHECK_EQ(vhost_set_features(&h.tap, PLAIN), 0);
	vhost_map(&h);
	vhost_start_ring(&h, TO);
	vhost_start_ring(&h, FROM);
	CHECK(!h.tap.blocked);
	vhost_offer(&h, 3, 2000);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(recv_one(NULL), 0);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(recv_one(NULL), HEADERS + 100);
	vhost_teardown(&h);
}

static void memory_may_be_mapped_anew_under_running_rings(void)
{
	struct guest_region r;

	vhost_setup(&h, FLAGS);
	vhost_offer(&h, 3, 2000);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	vhost_map(&h);
	CHECK_EQ(recv_one(NULL), HEADERS + 100);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);

	r = vram_region(&h.ram);
	r.user += VHOST_RAM; /* not where the rings were said to be */
	CHECK_EQ(vhost_set_memory(&h.tap, &r, 1), 0);
	CHECK_EQ(h.cnt.n[CNT_VHOST_BROKEN], 2);
	CHECK(h.tap.blocked);
	CHECK_EQ(tap_read(&h.tap), 0);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), -ENOTCONN);
	CHECK_EQ(tap_flush(&h.tap), 0);
	vhost_teardown(&h);
}

static void what_cannot_be_granted_is_refused(void)
{
	struct virtq_addr addr;

	vhost_setup(&h, FLAGS);
	addr = vring_addr(&h.ring[0]);
	CHECK_EQ(vhost_set_features(&h.tap, 0), -EBUSY);
	CHECK_EQ(vhost_start(&h.tap, 0, &addr, 0, h.kick[0], -1), -EBUSY);
	CHECK_EQ(vhost_start(&h.tap, VHOST_QUEUES, &addr, 0, h.kick[0], -1),
		 -EINVAL);
	CHECK_EQ(vhost_stop(&h.tap, 0), 0);
	CHECK_EQ(vhost_set_call(&h.tap, 0, h.call[0]), -ENOTCONN);
	addr.size = 63;
	CHECK_EQ(vhost_start(&h.tap, 0, &addr, 0, h.kick[0], -1), -EINVAL);
	(void)vhost_stop(&h.tap, 1);
	CHECK_EQ(vhost_set_features(&h.tap, UINT64_C(1) << 30), -EINVAL);
	CHECK_EQ(vhost_set_features(&h.tap, VHOST_FEATURES), 0);
	vhost_teardown(&h);
}

static void stopping_tells_where_to_go_on(void)
{
	vhost_setup(&h, FLAGS);
	guest_sends(60, 2, 1);
	guest_sends(60, 2, 1);
	CHECK_EQ(tap_read(&h.tap), 2);
	CHECK_EQ(vhost_stop(&h.tap, FROM), 2);
	CHECK_EQ(h.ring[FROM].used->idx, 2);
	guest_sends(61, 2, 1);
	CHECK_EQ(tap_read(&h.tap), 0);
	h.ring[FROM].avail->idx = 2;
	vhost_start_ring(&h, FROM);
	h.ring[FROM].avail->idx = 3;
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK_EQ(h.tap.rx[0].len, 61);
	vhost_teardown(&h);
}

static void new_call_descriptor_is_tried_at_once(void)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	vhost_setup(&h, FLAGS);
	CHECK_EQ(vhost_set_call(&h.tap, TO, dup(fd)), 0);
	CHECK_EQ(vhost_heard(fd), 1);
	vhost_offer(&h, 1, 1000);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	CHECK_EQ(tap_flush(&h.tap), 0);
	CHECK_EQ(vhost_heard(fd), 1);
	CHECK_EQ(vhost_heard(h.call[TO]), 0);
	close(fd);
	vhost_teardown(&h);
}

static void run_from_guest(void)
{
	RUN(frames_come_whole_however_they_are_cut);
	RUN(header_is_translated_and_only_its_flag_believed);
	RUN(header_is_short_without_buffer_count);
	RUN(chains_that_are_no_frames_are_counted_and_given_back);
	RUN(kick_stays_until_the_ring_is_empty);
	RUN(worst_batch_fits_the_buffer);
	RUN(disabled_ring_is_emptied_into_the_void);
	RUN(sent_buffers_are_told_once_a_flush);
}

static void run_to_guest(void)
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
}

int main(void)
{
	run_from_guest();
	run_to_guest();
	RUN(lying_ring_stops_alone_and_is_told_once);
	RUN(lying_receive_ring_blocks_the_tap);
	RUN(buffer_shorter_than_a_header_breaks_the_ring);
	RUN(truncated_memory_ends_the_session);
	RUN(kick_that_is_at_its_end_ends_the_session);
	RUN(next_guest_finds_nothing_of_the_last);
	RUN(memory_may_be_mapped_anew_under_running_rings);
	RUN(what_cannot_be_granted_is_refused);
	RUN(stopping_tells_where_to_go_on);
	RUN(new_call_descriptor_is_tried_at_once);
	return 0;
}
