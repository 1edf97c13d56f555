/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hostile bytes on the stream socket of a virtual machine
 *
 * A step is one of a guest that writes frames (runs of one TCP
 * stream, so that they are merged, and nonsense), whole or cut anywhere, with
 * right or wrong lengths; that reads what it is sent, or does not; that leaves
 * in the middle of a frame and comes back. The other half of the step is ours:
 * read, merge, check, and send frames, some of them super-segments. Afterwards
 * every frame must lie within what was received, and what the guest reads must
 * be frames.
 */

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "drive.h"
#include "guest.h"
#include "link/frame.h"
#include "link/extract.h"

#define OUT_MAX (1 << 20)

/** struct fuzz - Guest and tap
 * @fd:		The guest's end, or -1
 * @out:	What the guest is yet to write
 * @out_len:	Bytes of it
 * @in:		What it has read and not taken apart yet
 * @in_len:	Bytes of it
 * @seq:	Of its TCP stream
 * @asleep:	The guest reads nothing for now
 */
static struct fuzz {
	struct tap tap;
	struct counters cnt;
	int fd;
	uint8_t out[OUT_MAX];
	size_t out_len;
	uint8_t in[OUT_MAX];
	size_t in_len;
	uint32_t seq;
	bool asleep;
} f;

static uint8_t frame[GUEST_FRAME];
static uint8_t bytes[65536];

static void come(void)
{
	int fd[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	CHECK_EQ(tap_attach(&f.tap, fd[1]), 0);
	f.fd = fd[0];
	f.out_len = f.in_len = 0;
}

static void leave(void)
{
	close(f.fd);
	tap_detach(&f.tap);
	come();
}

/* make_segment() - The next one of a stream, with its checksum; its length */
static size_t make_segment(void)
{
	struct guest_ends ends = {
		.v6 = one_in(20), .host = 1, .sport = 40000, .dport = 80
	};
	uint32_t len = one_in(5) ? below(1449) : 1448;
	size_t n = guest_tcp(frame, &ends, TCP_FLAG_ACK, f.seq, 1, bytes, len);
	uint32_t l4 = ETH_HLEN_ + (ends.v6 ? 40 : 20),
		 l4_len = (uint32_t)n - l4;
	struct tcp_hdr *th = (struct tcp_hdr *)(frame + l4);
	uint64_t sum = (uint64_t)htonl(l4_len) + htonl(IPPROTO_TCP);

	if (one_in(8))
		th->flags |= TCP_FLAG_PSH;
	sum = csum_add(frame + l4 - (ends.v6 ? 32 : 8), ends.v6 ? 32 : 8, sum);
	th->check = (uint16_t)~csum_fold(csum_add(th, l4_len, sum));
	f.seq += len;
	return n;
}

static size_t make_nonsense(void)
{
	size_t len = ETH_HLEN_ + below(one_in(10) ? 65536 : 200);

	for (size_t i = 0; i < MIN(len, (size_t)100); i++)
		frame[i] = (uint8_t)below(256);
	return len;
}

/* say() - Append a frame to what the guest writes */
static void say(void)
{
	size_t len = one_in(10) ? make_nonsense() : make_segment();
	uint32_t prefix;

	if (one_in(15))
		frame[below((uint32_t)MIN(len, 80U))] ^=
			(uint8_t)(1 + below(255));
	if (one_in(200))
		prefix = htonl((uint32_t)test_random64(&rnd));
	else
		prefix = htonl((uint32_t)len);
	if (f.out_len + 4 + len > OUT_MAX)
		return;
	memcpy(f.out + f.out_len, &prefix, 4);
	memcpy(f.out + f.out_len + 4, frame, len);
	f.out_len += 4 + len;
}

/* guest_write() - As much as the guest feels like, and its socket takes */
static void guest_write(void)
{
	size_t n = one_in(3) ? 1 + below(3000) : f.out_len;
	ssize_t rc = send(f.fd, f.out, MIN(n, f.out_len), MSG_NOSIGNAL);

	if (rc <= 0)
		return;
	f.out_len -= (size_t)rc;
	memmove(f.out, f.out + rc, f.out_len);
}

/* guest_read() - Take frames; each must be one */
static void guest_read(void)
{
	ssize_t rc = recv(f.fd, f.in + f.in_len, OUT_MAX - f.in_len, 0);
	size_t pos = 0;
	uint32_t len;

	if (rc > 0)
		f.in_len += (size_t)rc;
	while (f.in_len - pos >= 4) {
		memcpy(&len, f.in + pos, 4);
		len = ntohl(len);
		CHECK(len >= 60 && len <= TAP_FRAME_MAX);
		if (f.in_len - pos < 4 + len)
			break;
		pos += 4 + len;
	}
	f.in_len -= pos;
	memmove(f.in, f.in + pos, f.in_len);
}

static void tap_take(void)
{
	int n = tap_read(&f.tap);

	if (n < 0) {
		leave();
		return;
	}
	CHECK(n <= TAP_BATCH);
	for (int i = 0; i < n; i++) {
		struct tap_rx *rx = &f.tap.rx[i];
		struct frame checked;

		CHECK(rx->len >= ETH_HLEN_ && rx->len <= TAP_FRAME_MAX);
		if (flow_extract(&checked, rx->data, rx->len, &rx->vh,
				 &f.cnt) == EXTRACT_FLOW)
			CHECK(checked.payload + checked.payload_len <= rx->len);
		else /* merged ones were checked before: they must stand */
			CHECK_EQ(rx->vh.gso_type, VNET_GSO_NONE);
	}
}

static void give_one(struct tap_batch *b)
{
	struct iovec payload[2];
	union inany src, dst;
	struct frame_out out;
	struct tcp_hdr *th;
	uint32_t len = below(65000);

	inany_from_v4(&src, (struct in_addr){ htonl(0xc6336401) });
	inany_from_v4(&dst, (struct in_addr){ htonl(0xc0000205) });
	payload[0] = (struct iovec){ bytes, below(len + 1) };
	payload[1] = (struct iovec){ bytes, len - payload[0].iov_len };
	th = (struct tcp_hdr *)(void *)frame_ip(
		&out, &f.tap, &src, &dst, IPPROTO_TCP, sizeof(*th), len, 0);
	*th = (struct tcp_hdr){ .off_res = 5 << 4, .flags = TCP_FLAG_ACK };
	frame_csum_offload(&out, &src, &dst, IPPROTO_TCP, sizeof(*th), len,
			   offsetof(struct tcp_hdr, check));
	frame_gso(&out, VNET_GSO_TCPV4, (uint16_t)(1 + below(9000)));
	(void)tap_batch_send(b, &out, payload, 2, len);
}

static void tap_give(void)
{
	TAP_BATCH_SCOPE(batch, &f.tap);

	do
		give_one(&batch);
	while (one_in(2));
}

static void step(void)
{
	switch (below(8)) {
	case 0:
	case 1:
	case 2:
		say();
		break;
	case 3:
		guest_write();
		break;
	case 4:
		tap_take();
		break;
	case 5:
		if (f.asleep || one_in(4))
			tap_give();
		break;
	case 6:
		if (one_in(500))
			f.asleep = !f.asleep;
		if (!f.asleep)
			guest_read();
		break;
	default:
		tap_room(&f.tap);
		if (one_in(3000))
			leave();
		break;
	}
}

static void begin(void)
{
	memset(&f.cnt, 0, sizeof(f.cnt));
	memset(&f.tap, 0, sizeof(f.tap));
	f.asleep = false;
	f.seq = 0;
	CHECK_EQ(tap_init(&f.tap, &tap_stream_ops,
			  &(struct tap_env){ .cnt = &f.cnt }),
		 0);
	f.tap.mtu = 65520;
	come();
}

static void end(void)
{
	CHECK(!drive_long ||
	      (f.cnt.n[CNT_TAP_RX_FRAMES] && f.cnt.n[CNT_TAP_TX_FRAMES] &&
	       f.cnt.n[CNT_TAP_BLOCKED]));
	tap_free(&f.tap);
	close(f.fd);
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
