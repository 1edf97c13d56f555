/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tap: reading, writing, software offload, headers, capture, faults */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "guest.h"
#include "link/frame.h"
#include "link/offload.h"
#include "link/tap_faults.h"

#define FRAME_MAX (10 + GUEST_FRAME)

static struct counters cnt;
static struct tap tap;
static int guest_fd;
static uint8_t buf[FRAME_MAX];

static void setup(bool vnet, uint32_t offloads)
{
	const struct tap_env env = { .cnt = &cnt,
				     .vnet = vnet,
				     .offloads = offloads };
	int fd[2];

	guest_socketpair(fd);
	guest_fd = fd[0];
	memset(&cnt, 0, sizeof(cnt));
	memset(&tap, 0, sizeof(tap));
	CHECK_EQ(tap_init(&tap, &tap_tun_ops, &env), 0);
	CHECK_EQ(tap_attach(&tap, fd[1]), 0);
	memcpy(tap.our_mac, guest_our_mac_, ETH_ALEN_);
	memcpy(tap.guest_mac, guest_mac_, ETH_ALEN_);
	tap.mtu = 1500;
}

static void teardown(void)
{
	tap_free(&tap);
	close(guest_fd);
}

static union inany addr(bool v6, uint8_t last)
{
	union inany a;

	if (!v6) {
		inany_from_v4(&a, (struct in_addr){ htonl(0xc0000200 | last) });
		return a;
	}
	inet_pton(AF_INET6, "2001:db8::", &a);
	a.a6.s6_addr[15] = last;
	return a;
}

static void read_batch_until_empty(void)
{
	uint8_t frame[100] = { 0 };

	setup(false, 0);
	CHECK_EQ(tap_read(&tap), 0);
	CHECK(tap.drained);
	for (int i = 0; i < TAP_BATCH + 3; i++) {
		frame[20] = (uint8_t)i;
		CHECK_EQ(write(guest_fd, frame, (size_t)60 + i % 40),
			 60 + i % 40);
	}
	CHECK_EQ(tap_read(&tap), TAP_BATCH);
	CHECK(!tap.drained);
	for (int i = 0; i < TAP_BATCH; i++) {
		CHECK_EQ(tap.rx[i].len, 60 + i % 40);
		CHECK_EQ(tap.rx[i].data[20], i);
	}
	CHECK_EQ(tap_read(&tap), 3);
	CHECK(tap.drained);
	CHECK_EQ(cnt.n[CNT_TAP_RX_FRAMES], TAP_BATCH + 3);
	teardown();
}

static void read_batch_ends_by_bytes(void)
{
	size_t len = sizeof(struct vnet_hdr) + TAP_FRAME_MAX;

	setup(true, 0);
	memset(buf, 0x5a, sizeof(buf));
	for (int i = 0; i < 3; i++)
		CHECK_EQ(write(guest_fd, buf, len), len);
	CHECK_EQ(tap_read(&tap), 2);
	CHECK_EQ(tap.rx[0].len, TAP_FRAME_MAX);
	CHECK_EQ(tap.rx[1].data[TAP_FRAME_MAX - 1], 0x5a);
	CHECK_EQ(tap.rx[1].vh.gso_size, 0x5a5a);
	CHECK_EQ(tap_read(&tap), 1);
	teardown();
}

/* Each frame ends one byte behind a cache line, all stay just below the bytes
 * of a batch, and the last one is as long as any */
static void worst_batch_fits_the_buffer(void)
{
	const size_t most = sizeof(struct vnet_hdr) + TAP_FRAME_MAX + 40;

	setup(true, 0);
	for (int i = 0; i < TAP_BATCH - 1; i++) {
		size_t len = i < 33 ? 1089 : 1025;

		CHECK_EQ(write(guest_fd, buf, len), len);
	}
	memset(buf, 0xa5, sizeof(buf));
	CHECK_EQ(write(guest_fd, buf, most), most);
	CHECK_EQ(tap_read(&tap), TAP_BATCH);
	CHECK_EQ(tap.rx[TAP_BATCH - 1].len, TAP_FRAME_MAX + 40);
	CHECK_EQ(tap.rx[TAP_BATCH - 1].data[TAP_FRAME_MAX + 39], 0xa5);
	teardown();
}

static void closed_tap_is_gone_after_its_frames(void)
{
	setup(false, 0);
	CHECK_EQ(write(guest_fd, buf, 60), 60);
	close(guest_fd);
	CHECK_EQ(tap_read(&tap), 1);
	CHECK(tap_read(&tap) < 0);
	CHECK(tap_read(&tap) < 0);
	teardown();
}

static void full_tap_is_an_error_and_counted(void)
{
	struct frame_out f = { .hdr_len = 60 };
	int err = 0;

	setup(true, 0);
	for (int i = 0; !err && i < 1000000; i++)
		err = tap_send(&tap, &f, NULL, 0);
	CHECK_EQ(err, -EAGAIN);
	CHECK_EQ(cnt.n[CNT_TAP_TX_ERRORS], 1);
	teardown();
}

/* Independent of base/checksum.c: bytes, big endian, one at a time */
static uint16_t slow_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* l4_of() - Check the IP header of a frame, return its L4 header and length */
static const uint8_t *l4_of(const uint8_t *frame, size_t len, uint8_t *proto,
			    size_t *l4_len)
{
	const uint8_t *ip = frame + ETH_HLEN_;

	CHECK_EQ(memcmp(frame, guest_mac_, 6), 0);
	CHECK_EQ(memcmp(frame + 6, guest_our_mac_, 6), 0);
	if (ip[0] >> 4 == 4) {
		CHECK_EQ(frame[12] << 8 | frame[13], ETHERTYPE_IPV4_);
		CHECK_EQ(ip[2] << 8 | ip[3], len - ETH_HLEN_);
		CHECK_EQ(slow_sum(0, ip, 20), 0xffff);
		*proto = ip[9];
		*l4_len = len - ETH_HLEN_ - 20;
		return ip + 20;
	}
	CHECK_EQ(frame[12] << 8 | frame[13], ETHERTYPE_IPV6_);
	CHECK_EQ(ip[0] >> 4, 6);
	CHECK_EQ(ip[4] << 8 | ip[5], len - ETH_HLEN_ - 40);
	*proto = ip[6];
	*l4_len = len - ETH_HLEN_ - 40;
	return ip + 40;
}

/* check_l4_sum() - The L4 checksum with pseudo header must come out right */
static void check_l4_sum(const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + ETH_HLEN_, *l4;
	bool v4 = ip[0] >> 4 == 4;
	uint32_t sum = 0;
	uint8_t proto;
	size_t l4_len;

	l4 = l4_of(frame, len, &proto, &l4_len);
	if (proto != IPPROTO_ICMP) {
		sum = slow_sum(0, v4 ? ip + 12 : ip + 8, v4 ? 8 : 32);
		sum += proto + (uint32_t)l4_len;
	}
	CHECK_EQ(slow_sum(sum, l4, l4_len), 0xffff);
}

/* super_segment() - A frame of @len payload bytes, cut in odd pieces */
static void super_segment(bool v6, uint8_t proto, const uint8_t *payload,
			  uint32_t len, uint16_t gso_size)
{
	union inany src = addr(v6, 1), dst = addr(v6, 5);
	uint32_t l4_len = proto == IPPROTO_TCP ? 20 : 8;
	struct tap_batch batch;
	struct iovec iov[4];
	struct frame_out f;
	uint8_t *l4;

	memset(&f, 0xee, sizeof(f));
	l4 = frame_ip(&f, &tap, &src, &dst, proto, l4_len, len, 0);
	if (proto == IPPROTO_TCP)
		*(struct tcp_hdr *)l4 = (struct tcp_hdr){
			.source = htons(80),
			.seq = htonl(0xfffffff0),
			.off_res = 0x50,
			.flags = TCP_FLAG_ACK | TCP_FLAG_PSH | TCP_FLAG_FIN,
		};
	else
		*(struct udp_hdr *)l4 = (struct udp_hdr){
			.source = htons(80),
			.len = htons((uint16_t)(8 + len)),
		};
	frame_csum_offload(&f, &src, &dst, proto, l4_len, len,
			   proto == IPPROTO_TCP ? 16 : 6);
	if (gso_size)
		frame_gso(&f,
			  proto == IPPROTO_UDP ? VNET_GSO_UDP_L4 :
			  v6		       ? VNET_GSO_TCPV6 :
						 VNET_GSO_TCPV4,
			  gso_size);
	iov[0] = (struct iovec){ (void *)payload, len / 3 | 1 };
	iov[1] = (struct iovec){ (void *)(payload + iov[0].iov_len), 0 };
	iov[2] = (struct iovec){ (void *)(payload + iov[0].iov_len), 7 };
	iov[3].iov_base = (void *)(payload + iov[0].iov_len + 7);
	iov[3].iov_len = len - iov[0].iov_len - 7;
	batch = tap_batch_begin(&tap);
	CHECK_EQ(tap_batch_send(&batch, &f, iov, 4, len), 0);
	tap_batch_end(&batch);
}

static void check_tcp_segment(const struct tcp_hdr *tcp, uint32_t done,
			      bool last)
{
	CHECK_EQ(ntohl(tcp->seq), (uint32_t)(0xfffffff0 + done));
	CHECK_EQ(!!(tcp->flags & TCP_FLAG_FIN), last);
	CHECK_EQ(!!(tcp->flags & TCP_FLAG_PSH), last);
	CHECK_EQ(!!(tcp->flags & TCP_FLAG_ACK), true);
}

/* check_cut() - Read what became of a super-segment, compare the payload */
static void check_cut(uint8_t want_proto, const uint8_t *payload, uint32_t len,
		      uint16_t size)
{
	size_t head = tap.vnet ? sizeof(struct vnet_hdr) : 0;
	uint32_t done = 0;

	while (done < len) {
		uint32_t part = MIN(len - done, (uint32_t)size);
		ssize_t n = read(guest_fd, buf, sizeof(buf));
		const uint8_t *l4;
		uint8_t proto;
		size_t l4_len;

		CHECK(n > 0);
		if (head)
			CHECK_EQ(memcmp(buf, "\0\0\0\0\0\0\0\0\0", 10), 0);
		l4 = l4_of(buf + head, (size_t)n - head, &proto, &l4_len);
		CHECK_EQ(proto, want_proto);
		check_l4_sum(buf + head, (size_t)n - head);
		l4_len -= part;
		if (proto == IPPROTO_TCP)
			check_tcp_segment((const void *)l4, done,
					  done + part == len);
		else
			CHECK_EQ(l4[4] << 8 | l4[5], 8 + part);
		CHECK_EQ(memcmp(l4 + l4_len, payload + done, part), 0);
		done += part;
	}
	CHECK_EQ(read(guest_fd, buf, sizeof(buf)), -1);
}

static void software_offload_cuts_and_sums(void)
{
	static const uint16_t sizes[] = { 1, 2, 999, 1448, 1449, 60000 };
	static uint8_t payload[60000];
	struct test_random rnd = { 42 };

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)test_random64(&rnd);
	for (unsigned mix = 0; mix < 8 * ARRAY_SIZE(sizes); mix++) {
		uint8_t proto = mix & 1 ? IPPROTO_TCP : IPPROTO_UDP;
		uint16_t size = sizes[mix / 8];
		uint32_t len = MIN((uint32_t)size * 17 + 5, 60000U);

		setup(mix & 2, 0);
		super_segment(mix & 4, proto, payload, len, size);
		check_cut(proto, payload, len, size);
		teardown();
	}
}

static void whole_frame_is_summed_in_software(void)
{
	static const uint8_t payload[1001] = { 1, 2, 3, 4, 5 };

	for (unsigned mix = 0; mix < 4; mix++) {
		uint8_t proto = mix & 1 ? IPPROTO_TCP : IPPROTO_UDP;

		setup(false, 0);
		super_segment(mix & 2, proto, payload, sizeof(payload), 0);
		check_cut(proto, payload, sizeof(payload), sizeof(payload));
		teardown();
	}
}

static void kernel_is_left_what_it_takes(void)
{
	static const uint8_t payload[5000] = { 7 };
	const struct vnet_hdr *vh = (const struct vnet_hdr *)buf;

	setup(true, TAP_OFFLOAD_CSUM | TAP_OFFLOAD_TSO4);
	super_segment(false, IPPROTO_TCP, payload, sizeof(payload), 1448);
	CHECK_EQ(read(guest_fd, buf, sizeof(buf)), 10 + 14 + 20 + 20 + 5000);
	CHECK_EQ(vh->flags, VNET_F_NEEDS_CSUM);
	CHECK_EQ(vh->gso_type, VNET_GSO_TCPV4);
	CHECK_EQ(vh->gso_size, 1448);
	CHECK_EQ(vh->hdr_len, 54);
	CHECK_EQ(vh->csum_start, 34);
	CHECK_EQ(vh->csum_offset, 16);

	/* Not granted: cut here */
	super_segment(true, IPPROTO_TCP, payload, sizeof(payload), 1448);
	check_cut(IPPROTO_TCP, payload, sizeof(payload), 1448);
	super_segment(false, IPPROTO_UDP, payload, sizeof(payload), 1472);
	check_cut(IPPROTO_UDP, payload, sizeof(payload), 1472);
	teardown();
}

static void icmp_error_quotes_what_fits(void)
{
	static uint8_t quote[2000];

	for (int v6 = 0; v6 < 2; v6++) {
		union inany src = addr(v6, 1), dst = addr(v6, 5);
		size_t most = v6 ? 1280 : 576, n;
		const uint8_t *l4;
		uint8_t proto;
		size_t len;

		setup(false, 0);
		quote[3] = 0x45;
		CHECK_EQ(frame_icmp_error(&tap, &src, &dst, 3, 4, 1400, quote,
					  sizeof(quote)),
			 0);
		n = (size_t)read(guest_fd, buf, sizeof(buf));
		CHECK_EQ(n, ETH_HLEN_ + most);
		l4 = l4_of(buf, n, &proto, &len);
		check_l4_sum(buf, n);
		CHECK_EQ(proto, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
		CHECK_EQ(l4[0] << 8 | l4[1], 3 << 8 | 4);
		CHECK_EQ(l4[4] << 24 | l4[5] << 16 | l4[6] << 8 | l4[7], 1400);
		CHECK_EQ(l4[8 + 3], 0x45);
		CHECK_EQ(frame_icmp_error(&tap, &src, &dst, 3, 1, 0, quote, 29),
			 0);
		n = (size_t)read(guest_fd, buf, sizeof(buf));
		check_l4_sum(buf, n);
		teardown();
	}
}

static void ttl_and_fragment_bits(void)
{
	union inany src = addr(false, 1), dst = addr(false, 5);
	struct frame_out f;

	setup(false, 0);
	frame_ip(&f, &tap, &src, &dst, IPPROTO_UDP, 8, 0, 0);
	CHECK_EQ(f.hdr[ETH_HLEN_ + 8], 255);
	CHECK_EQ(f.hdr[ETH_HLEN_ + 6] << 8 | f.hdr[ETH_HLEN_ + 7], IP4_DF);
	frame_ip(&f, &tap, &src, &dst, IPPROTO_UDP, 8, 0, 17);
	CHECK_EQ(f.hdr[ETH_HLEN_ + 8], 17);
	CHECK_EQ(f.hdr_len, 42);
	teardown();
}

static void inject_refuses_what_is_no_frame(void)
{
	setup(true, 0);
	memset(buf, 1, sizeof(buf));
	CHECK_EQ(tap_inject(&tap, buf, 13), -EMSGSIZE);
	CHECK_EQ(tap_inject(&tap, buf, TAP_FRAME_MAX + 1), -EMSGSIZE);
	CHECK_EQ(tap_inject(&tap, buf, 42), 0);
	CHECK_EQ(read(guest_fd, buf, sizeof(buf)), 52);
	CHECK_EQ(buf[0], 0);
	CHECK_EQ(buf[51], 1);
	teardown();
}

static void capture_is_a_pcap_file(void)
{
	int fd = memfd_create("pcap", 0), kept = dup(fd);
	uint32_t word[6 + 4];

	setup(false, 0);
	CHECK_EQ(pcap_start(&tap.pcap, fd), 0);
	memset(buf, 9, 60);
	CHECK_EQ(write(guest_fd, buf, 60), 60);
	CHECK_EQ(tap_read(&tap), 1);
	CHECK_EQ(tap_inject(&tap, buf, 42), 0);
	pcap_stop(&tap.pcap);
	CHECK_EQ(lseek(kept, 0, SEEK_END), 24 + 16 + 60 + 16 + 42);
	CHECK_EQ(pread(kept, word, sizeof(word), 0), sizeof(word));
	CHECK_EQ(word[0], 0xa1b23c4d);
	CHECK_EQ(word[5], 1);
	CHECK_EQ(word[8], 60);
	CHECK_EQ(word[9], 60);
	teardown();
	close(kept);
}

static void failing_capture_stops(void)
{
	int fd = open("/dev/full", O_WRONLY);

	setup(false, 0);
	CHECK(fd >= 0);
	CHECK_EQ(pcap_start(&tap.pcap, fd), -ENOSPC);
	CHECK_EQ(tap.pcap.fd, -1);
	CHECK_EQ(tap.pcap.error, ENOSPC);
	CHECK_EQ(tap_inject(&tap, buf, 42), 0);
	teardown();
}

#ifdef PASSTPY_FAULTS

#define FAULT_FRAMES 20000

/* collect() - Numbers of the frames that arrive, in order */
static unsigned collect(uint32_t *seen, unsigned n)
{
	for (int got; (got = tap_read(&tap)) > 0;) {
		for (int i = 0; i < got; i++)
			memcpy(&seen[n++], tap.rx[i].data + 20, 4);
	}
	return n;
}

static unsigned collect_guest(uint32_t *seen, unsigned n)
{
	while (read(guest_fd, buf, sizeof(buf)) == 60)
		memcpy(&seen[n++], buf + 20, 4);
	return n;
}

/* run_faults() - Send numbered frames one way; how many came, in @seen */
static unsigned run_faults(bool to_guest, uint32_t *seen)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < FAULT_FRAMES; i++) {
		uint8_t frame[60] = { 0 };

		memcpy(frame + 20, &i, 4);
		if (to_guest)
			CHECK_EQ(tap_inject(&tap, frame, 60), 0);
		else
			CHECK_EQ(write(guest_fd, frame, 60), 60);
		if (i % 5 == 0 && to_guest)
			n = collect_guest(seen, n);
		else if (i % 5 == 0)
			n = collect(seen, n);
	}
	if (tap_faults_settle(&tap) && !to_guest)
		n = collect(seen, n);
	return to_guest ? collect_guest(seen, n) : collect(seen, n);
}

static void reordered_frames_are_never_lost(void)
{
	static uint32_t seen[FAULT_FRAMES];
	static bool there[FAULT_FRAMES];

	for (int way = 0; way < 2; way++) {
		unsigned moved = 0;

		setup(false, 0);
		CHECK_EQ(tap_faults_parse(&tap, "reorder_ppm=100000,seed=3"),
			 0);
		CHECK_EQ(run_faults(way, seen), FAULT_FRAMES);
		memset(there, 0, sizeof(there));
		for (uint32_t i = 0; i < FAULT_FRAMES; i++) {
			CHECK(!there[seen[i]]);
			there[seen[i]] = true;
			CHECK(seen[i] <= i + 3);
			moved += seen[i] > i;
		}
		CHECK(moved > FAULT_FRAMES / 100);
		CHECK(cnt.n[CNT_FAULT_REORDERED] > 0);
		teardown();
	}
}

static void dropped_frames_are_as_many_as_asked(void)
{
	static uint32_t seen[FAULT_FRAMES];

	for (int way = 0; way < 2; way++) {
		unsigned n;

		setup(false, 0);
		tap_faults_set(&tap, 10000, 0, 5);
		n = run_faults(way, seen);
		CHECK_EQ(n + cnt.n[CNT_FAULT_DROPPED], FAULT_FRAMES);
		CHECK(FAULT_FRAMES - n > 120 && FAULT_FRAMES - n < 300);
		teardown();
	}
}

static void fault_text_is_checked(void)
{
	setup(false, 0);
	CHECK_EQ(tap_faults_parse(&tap, ""), 0);
	CHECK_EQ(tap_faults_parse(&tap, "drop_ppm=7"), 0);
	CHECK_EQ(tap.faults.drop_ppm, 7);
	CHECK_EQ(tap_faults_parse(&tap, "drop_ppm"), -EINVAL);
	CHECK_EQ(tap_faults_parse(&tap, "drop_ppm="), -EINVAL);
	CHECK_EQ(tap_faults_parse(&tap, "drop_ppm=5x"), -EINVAL);
	CHECK_EQ(tap_faults_parse(&tap, "other=5"), -EINVAL);
	teardown();
}

#endif /* PASSTPY_FAULTS */

int main(void)
{
	RUN(read_batch_until_empty);
	RUN(read_batch_ends_by_bytes);
	RUN(worst_batch_fits_the_buffer);
	RUN(closed_tap_is_gone_after_its_frames);
	RUN(full_tap_is_an_error_and_counted);
	RUN(software_offload_cuts_and_sums);
	RUN(whole_frame_is_summed_in_software);
	RUN(kernel_is_left_what_it_takes);
	RUN(icmp_error_quotes_what_fits);
	RUN(ttl_and_fragment_bits);
	RUN(inject_refuses_what_is_no_frame);
	RUN(capture_is_a_pcap_file);
	RUN(failing_capture_stops);
#ifdef PASSTPY_FAULTS
	RUN(reordered_frames_are_never_lost);
	RUN(dropped_frames_are_as_many_as_asked);
	RUN(fault_text_is_checked);
#endif
	return 0;
}
