/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tap of rings: frames of the guest, rings that lie, memory that is lost */

#include <errno.h>

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

static void kicks_are_asked_for_before_sleeping_only(void)
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
	CHECK(!tap_poll(&h.tap));
	CHECK_EQ(h.ring[FROM].used->flags, VIRTQ_USED_F_NO_NOTIFY);
	CHECK_EQ(tap_read(&h.tap), 0); /* epoll still tells of the old kick */
	CHECK_EQ(vhost_heard(h.kick[FROM]), 0);

	guest_sends(60, 1, 5);
	vhost_kick(&h, FROM);
	CHECK_EQ(vhost_heard(h.kick[FROM]), 0);
	CHECK(tap_poll(&h.tap));
	CHECK_EQ(tap_read(&h.tap), 1);

	guest_sends(60, 1, 6); /* while we go to sleep */
	tap_settle(&h.tap);
	CHECK(h.tap.more);
	CHECK_EQ(tap_read(&h.tap), 1);
	tap_settle(&h.tap);
	CHECK(!h.tap.more);
	CHECK_EQ(h.ring[FROM].used->flags, 0);
	guest_sends(60, 1, 7);
	vhost_kick(&h, FROM);
	CHECK_EQ(vhost_heard(h.kick[FROM]), 1);
	vhost_teardown(&h);
}

static void batch_cut_short_goes_on_without_a_kick(void)
{
	vhost_setup(&h, VHOST_FEATURES);
	CHECK_EQ(tap_read(&h.tap), 0); /* kicks were asked for: none comes */
	for (int i = 0; i < 5; i++)
		guest_sends(40000, 1, (uint8_t)i);
	CHECK_EQ(tap_read(&h.tap), 4); /* 128 KiB */
	CHECK(h.tap.more);
	CHECK_EQ(tap_read(&h.tap), 1);
	CHECK(!h.tap.more);
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
	vhost_show(&h);
	CHECK_EQ(vhost_heard(h.call[FROM]), 0);
	guest_sends(60, 1, 1);
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 2);
	vhost_show(&h);
	vhost_show(&h);
	CHECK_EQ(vhost_heard(h.call[FROM]), 1);
	h.ring[FROM].avail->flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
	guest_sends(60, 1, 1);
	CHECK_EQ(tap_read(&h.tap), 1);
	vhost_show(&h);
	CHECK_EQ(vhost_heard(h.call[FROM]), 0);
	CHECK_EQ(h.cnt.n[CNT_VHOST_CALLS], 1);
	vhost_teardown(&h);
}

static size_t recv_one(unsigned *ret_bufs)
{
	return vhost_recv(&h, &vh, buf, sizeof(buf), ret_bufs);
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
	vhost_show(&h);
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
	CHECK_EQ(vhost_of(&h.tap)->queue[TO].vq.fault, VIRTQ_BAD_LENGTH);
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
	CHECK_EQ(vhost_of(&h.tap)->mem.n, 0);
	CHECK_EQ(vhost_set_features(&h.tap, PLAIN), 0);
	vhost_map(&h);
	vhost_start_ring(&h, TO);
	vhost_start_ring(&h, FROM);
	CHECK(!h.tap.blocked);
	vhost_offer(&h, 3, 2000);
	vhost_show(&h);
	CHECK_EQ(recv_one(NULL), 0);
	CHECK_EQ(vhost_segment(&h, 100, 0, 1), 0);
	vhost_show(&h);
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
	vhost_show(&h);
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
	vhost_show(&h);
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
	RUN(kicks_are_asked_for_before_sleeping_only);
	RUN(batch_cut_short_goes_on_without_a_kick);
	RUN(worst_batch_fits_the_buffer);
	RUN(disabled_ring_is_emptied_into_the_void);
	RUN(sent_buffers_are_told_once_a_flush);
}

int main(void)
{
	run_from_guest();
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
