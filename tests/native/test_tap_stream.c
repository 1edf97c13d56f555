/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The socket of a virtual machine: framing, back-pressure, coming and going */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "guest.h"
#include "link/frame.h"
#include "link/tap_faults.h"

#define STREAM_MAX (32 << 20)

static struct counters cnt;
static struct tap tap;
static int guest_fd;
static uint8_t stream[STREAM_MAX];

static int attach_new(void)
{
	int fd[2], err;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	err = tap_attach(&tap, fd[1]);
	if (err) {
		close(fd[0]);
		close(fd[1]);
		return err;
	}
	guest_fd = fd[0];
	return 0;
}

static void setup(void)
{
	memset(&cnt, 0, sizeof(cnt));
	memset(&tap, 0, sizeof(tap));
	CHECK_EQ(tap_init(&tap, &tap_stream_ops,
			  &(struct tap_env){ .cnt = &cnt }),
		 0);
	CHECK(tap.blocked);
	CHECK_EQ(attach_new(), 0);
	CHECK(!tap.blocked);
	tap.merge = false; /* test_merge.c */
	tap.mtu = 65520;
	memcpy(tap.our_mac, guest_our_mac_, ETH_ALEN_);
	memcpy(tap.guest_mac, guest_mac_, ETH_ALEN_);
}

static void teardown(void)
{
	tap_free(&tap);
	close(guest_fd);
}

/* put_frame() - A frame of @len bytes in the stream, filled by its number */
static size_t put_frame(uint8_t *p, uint32_t len, uint8_t number)
{
	uint32_t prefix = htonl(len);

	memcpy(p, &prefix, sizeof(prefix));
	memset(p + sizeof(prefix), number, len);
	return sizeof(prefix) + len;
}

static void check_frame(const struct tap_rx *rx, uint32_t len, uint8_t number)
{
	CHECK_EQ(rx->len, len);
	for (uint32_t i = 0; i < len; i++)
		CHECK_EQ(rx->data[i], number);
}

static uint32_t odd_length(unsigned i)
{
	static const uint32_t len[] = { 14, 60, 1514, 65535, 15, 9014 };

	return len[i % ARRAY_SIZE(len)];
}

static void frames_are_whole_however_the_stream_is_cut(void)
{
	static const size_t cuts[] = { 1, 3, 5, 17, 1000, 65000, 300000 };
	const unsigned frames = 40;

	for (unsigned c = 0; c < ARRAY_SIZE(cuts); c++) {
		size_t end = 0, pos = 0;
		unsigned seen = 0;

		setup();
		for (unsigned i = 0; i < frames; i++)
			end += put_frame(stream + end, odd_length(i),
					 (uint8_t)i);
		while (seen < frames) {
			size_t part = MIN(cuts[c], end - pos);
			ssize_t rc =
				part ? write(guest_fd, stream + pos, part) : 0;
			int n;

			if (rc > 0)
				pos += (size_t)rc;
			n = tap_read(&tap);
			CHECK(n >= 0);
			for (int i = 0; i < n; i++, seen++)
				check_frame(&tap.rx[i], odd_length(seen),
					    (uint8_t)seen);
		}
		CHECK_EQ(tap_read(&tap), 0);
		CHECK(tap.drained && !tap.more);
		teardown();
	}
}

static void what_exceeds_a_batch_is_there_without_another_byte(void)
{
	size_t end = 0;

	setup();
	for (unsigned i = 0; i < 2 * TAP_BATCH + 7; i++)
		end += put_frame(stream + end, 60, (uint8_t)i);
	CHECK_EQ(write(guest_fd, stream, end), end);
	CHECK_EQ(tap_read(&tap), TAP_BATCH);
	CHECK(tap.more && !tap.drained);
	CHECK_EQ(tap_read(&tap), TAP_BATCH);
	CHECK(tap.more);
	check_frame(&tap.rx[0], 60, TAP_BATCH);
	CHECK_EQ(tap_read(&tap), 7);
	CHECK(!tap.more && tap.drained);
	teardown();
}

static void impossible_length_ends_the_connection(void)
{
	static const uint32_t lengths[] = {
		0, 1, 13, 65536, 1 << 20, 0xffffffff
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t prefix = htonl(lengths[i]);
		size_t end;

		setup();
		end = put_frame(stream, 60, 7);
		memcpy(stream + end, &prefix, sizeof(prefix));
		end += sizeof(prefix);
		CHECK_EQ(write(guest_fd, stream, end), end);
		CHECK_EQ(tap_read(&tap), 1); /* what came before counts */
		CHECK(tap.more);
		CHECK_EQ(tap_read(&tap), -EPROTO);
		teardown();
	}
}

static void half_a_frame_does_not_outlive_its_connection(void)
{
	size_t end;

	setup();
	end = put_frame(stream, 1514, 1);
	CHECK_EQ(write(guest_fd, stream, end - 900), end - 900);
	CHECK_EQ(tap_read(&tap), 0);
	close(guest_fd);
	CHECK_EQ(tap_read(&tap), -ENOTCONN);
	tap_detach(&tap);
	CHECK_EQ(tap.fd, -1);
	CHECK(tap.blocked);

	CHECK_EQ(attach_new(), 0);
	CHECK_EQ(write(guest_fd, stream, end), end);
	CHECK_EQ(tap_read(&tap), 1);
	check_frame(&tap.rx[0], 1514, 1);
	teardown();
}

static void only_one_stream_socket_is_attached(void)
{
	int fd[2];

	setup();
	CHECK_EQ(attach_new(), -EBUSY);
	tap_detach(&tap);
	close(guest_fd);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	CHECK_EQ(tap_attach(&tap, fd[1]), -EPROTOTYPE);
	CHECK_EQ(tap_attach(&tap, -1), -EBADF);
	close(fd[0]);
	close(fd[1]);
	CHECK_EQ(attach_new(), 0);
	teardown();
}

static void without_a_guest_frames_go_nowhere(void)
{
	setup();
	tap_detach(&tap);
	CHECK_EQ(tap_inject(&tap, stream, 60), -ENOTCONN);
	tap_flush(&tap);
	CHECK_EQ(tap_read(&tap), 0);
	tap_room(&tap);
	CHECK(tap.blocked);
	teardown();
}

/* read_guest() - What the guest finds in its socket, appended at @end */
static size_t read_guest(size_t end)
{
	ssize_t n;

	while ((n = read(guest_fd, stream + end, STREAM_MAX - end)) > 0)
		end += (size_t)n;
	return end;
}

/* next_frame() - Take a frame out of what the guest read; its bytes or NULL */
static const uint8_t *next_frame(size_t *pos, size_t end, uint32_t *ret_len)
{
	if (*pos == end)
		return NULL;
	CHECK(end - *pos >= 4);
	memcpy(ret_len, stream + *pos, 4);
	*ret_len = ntohl(*ret_len);
	CHECK(end - *pos >= 4 + *ret_len);
	*pos += 4 + *ret_len;
	return stream + *pos - *ret_len;
}

/* A frame whose bytes all tell its number: two payload pieces, one of them odd */
static int send_numbered(uint32_t number, uint32_t size)
{
	static uint8_t bytes[65535];
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	struct iovec payload[2] = { { bytes, 7 }, { bytes + 7, size - 7 } };
	TAP_BATCH_SCOPE(batch, &tap); /* @bytes are used again */

	memset(f.hdr, (int)number, ETH_HLEN_);
	memset(bytes, (int)number, size);
	return tap_batch_send(&batch, &f, payload, 2, size);
}

static void a_full_socket_delays_frames_and_drops_none(void)
{
	const uint32_t size = 20000;
	uint32_t sent = 0, seen = 0, len;
	size_t end = 0, pos = 0;
	const uint8_t *frame;

	setup();
	while (!tap.blocked)
		CHECK_EQ(send_numbered(sent++, size), 0);
	CHECK_EQ(cnt.n[CNT_TAP_BLOCKED], 1);
	while (!send_numbered(sent, size))
		sent++;
	CHECK_EQ(send_numbered(sent, size), -EAGAIN); /* at last */
	CHECK(sent > 200);

	while (tap.blocked) {
		end = read_guest(end);
		tap_room(&tap);
	}
	CHECK_EQ(send_numbered(sent++, size), 0);
	end = read_guest(end);
	while ((frame = next_frame(&pos, end, &len))) {
		CHECK_EQ(len, ETH_HLEN_ + size);
		for (uint32_t i = 0; i < len; i++)
			CHECK_EQ(frame[i], (uint8_t)seen);
		seen++;
	}
	CHECK_EQ(seen, sent);
	teardown();
}

static void many_frames_of_a_batch_go_in_order(void)
{
	uint8_t bytes[64];
	size_t end, pos = 0;
	uint32_t len;

	setup();
	memset(bytes, 0, sizeof(bytes));
	for (uint32_t i = 0; i < 3000; i++) {
		memcpy(bytes + ETH_HLEN_, &i, sizeof(i));
		CHECK_EQ(tap_inject(&tap, bytes, sizeof(bytes)), 0);
		tap_room(&tap);
	}
	end = read_guest(0);
	for (uint32_t i = 0; i < 3000; i++) {
		const uint8_t *frame = next_frame(&pos, end, &len);

		if (!frame) {
			tap_room(&tap);
			end = read_guest(end);
			frame = next_frame(&pos, end, &len);
		}
		CHECK(frame && len == sizeof(bytes));
		CHECK_EQ(memcmp(frame + ETH_HLEN_, &i, sizeof(i)), 0);
	}
	teardown();
}

static void short_frames_are_padded(void)
{
	uint8_t bytes[60];
	const uint8_t *frame;
	size_t end, pos = 0;
	uint32_t len;

	memset(bytes, 0xab, sizeof(bytes));
	setup();
	for (uint32_t n = ETH_HLEN_; n <= sizeof(bytes); n++)
		CHECK_EQ(tap_inject(&tap, bytes, n), 0);
	end = read_guest(0);
	for (uint32_t n = ETH_HLEN_; n <= sizeof(bytes); n++) {
		frame = next_frame(&pos, end, &len);
		CHECK(frame && len == sizeof(bytes));
		for (uint32_t i = 0; i < len; i++)
			CHECK_EQ(frame[i], i < n ? 0xab : 0);
	}
	while (!tap.blocked)
		CHECK_EQ(send_numbered(1, 20000), 0);
	CHECK_EQ(tap_inject(&tap, bytes, 42), 0);
	for (end = pos = 0; tap.blocked; tap_room(&tap))
		end = read_guest(end);
	end = read_guest(end);
	while (pos < end)
		frame = next_frame(&pos, end, &len);
	CHECK_EQ(len, sizeof(bytes));
	CHECK(frame[41] == 0xab && !frame[42] && !frame[59]);
	teardown();
}

/* Independent of base/checksum.c */
static uint16_t slow_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void super_segments_are_cut_and_summed(void)
{
	static uint8_t bytes[40000];
	struct iovec payload = { bytes, sizeof(bytes) };
	size_t end, pos = 0, got = 0;
	struct tap_batch batch;
	union inany src, dst;
	struct frame_out f;
	struct tcp_hdr *th;
	const uint8_t *frame;
	uint32_t len;

	setup();
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	inany_from_v4(&src, (struct in_addr){ htonl(0xc6336401) });
	inany_from_v4(&dst, (struct in_addr){ htonl(0xc0000205) });
	th = (struct tcp_hdr *)(void *)frame_ip(&f, &tap, &src, &dst,
						IPPROTO_TCP, sizeof(*th),
						sizeof(bytes), 0);
	*th = (struct tcp_hdr){ .seq = htonl(1000),
				.off_res = 5 << 4,
				.flags = TCP_FLAG_ACK };
	frame_csum_offload(&f, &src, &dst, IPPROTO_TCP, sizeof(*th),
			   sizeof(bytes), offsetof(struct tcp_hdr, check));
	frame_gso(&f, VNET_GSO_TCPV4, 1460);
	batch = tap_batch_begin(&tap);
	CHECK_EQ(tap_batch_send(&batch, &f, &payload, 1, sizeof(bytes)), 0);
	tap_batch_end(&batch);

	end = read_guest(0);
	while ((frame = next_frame(&pos, end, &len))) {
		uint32_t part = len - 54;

		CHECK(part <= 1460);
		CHECK_EQ(slow_sum(0, frame + 14, 20), 0xffff);
		CHECK_EQ(slow_sum(slow_sum(6 + 20 + part, frame + 26, 8),
				  frame + 34, 20 + part),
			 0xffff);
		CHECK_EQ(memcmp(frame + 54, bytes + got, part), 0);
		got += part;
	}
	CHECK_EQ(got, sizeof(bytes));
	teardown();
}

int main(void)
{
	RUN(frames_are_whole_however_the_stream_is_cut);
	RUN(what_exceeds_a_batch_is_there_without_another_byte);
	RUN(impossible_length_ends_the_connection);
	RUN(half_a_frame_does_not_outlive_its_connection);
	RUN(only_one_stream_socket_is_attached);
	RUN(without_a_guest_frames_go_nowhere);
	RUN(a_full_socket_delays_frames_and_drops_none);
	RUN(many_frames_of_a_batch_go_in_order);
	RUN(short_frames_are_padded);
	RUN(super_segments_are_cut_and_summed);
	return 0;
}
