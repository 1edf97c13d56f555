/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Merging of the guest's segments, also against a trivial model */

#include <string.h>

#include "base/macros.h"
#include "guest.h"
#include "link/merge.h"

#define FRAMES 128
#define FLOWS  3
#define BYTES  (FRAMES * 2048)

static uint8_t buf[BYTES + 4096];
static struct tap_rx rx[FRAMES];
static size_t fill;
static unsigned n;

/** struct tcp_options - What a segment is made of, beyond the usual */
struct segment {
	struct guest_ends ends;
	uint32_t seq;
	uint32_t ack;
	uint8_t flags;
	uint32_t len;
};

static void clear(void)
{
	fill = n = 0;
	memset(rx, 0, sizeof(rx));
}

/* byte_at() - What the stream of a flow holds at a sequence number */
static uint8_t byte_at(const struct guest_ends *ends, uint32_t seq)
{
	return (uint8_t)(seq * 31 + seq / 257 + ends->sport);
}

static void sum_tcp(uint8_t *frame, size_t len, bool v6)
{
	uint32_t l4 = ETH_HLEN_ + (v6 ? 40 : 20);
	struct tcp_hdr *th = (struct tcp_hdr *)(frame + l4);
	uint32_t l4_len = (uint32_t)len - l4;
	union inany src, dst;

	if (v6) {
		memcpy(&src, frame + 22, 16);
		memcpy(&dst, frame + 38, 16);
	} else {
		struct in_addr a;

		memcpy(&a, frame + 26, 4);
		inany_from_v4(&src, a);
		memcpy(&a, frame + 30, 4);
		inany_from_v4(&dst, a);
	}
	th->check = 0;
	th->check = (uint16_t)~csum_fold(csum_add(
		th, l4_len, csum_pseudo(&src, &dst, IPPROTO_TCP, l4_len)));
}

/* add() - A segment behind those before it, as a stream socket leaves them */
static uint8_t *add(const struct segment *s)
{
	uint8_t payload[2048], *frame = buf + fill + 4;
	size_t len;

	for (uint32_t i = 0; i < s->len; i++)
		payload[i] = byte_at(&s->ends, s->seq + i);
	len = guest_tcp(frame, &s->ends, s->flags, s->seq, s->ack, payload,
			s->len);
	sum_tcp(frame, len, s->ends.v6);
	rx[n++] = (struct tap_rx){ .data = frame, .len = (uint32_t)len };
	fill += 4 + len;
	return frame;
}

static struct segment first(bool v6)
{
	return (struct segment){
		.ends = { .v6 = v6, .host = 1, .sport = 40000, .dport = 80 },
		.seq = 1000,
		.ack = 77,
		.flags = TCP_FLAG_ACK,
		.len = 1448,
	};
}

/* check_ip() - IP length and checksum agree with the frame */
static void check_ip(const struct tap_rx *r)
{
	const uint8_t *ip = r->data + ETH_HLEN_;

	if (ip[0] >> 4 == 4) {
		CHECK_EQ(ip[2] << 8 | ip[3], r->len - ETH_HLEN_);
		CHECK_EQ(csum_fold(csum_add(ip, 20, 0)), 0xffff);
	} else {
		CHECK_EQ(ip[4] << 8 | ip[5], r->len - ETH_HLEN_ - 40);
	}
}

static void segments_in_a_row_become_one(void)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment s = first(v6);
		uint32_t hdr = ETH_HLEN_ + (v6 ? 60 : 40);

		clear();
		for (int i = 0; i < 10; i++, s.seq += s.len) {
			if (i == 9) {
				s.len = 100;
				s.flags |= TCP_FLAG_PSH;
			}
			add(&s);
		}
		CHECK_EQ(merge_batch(rx, n), 1);
		CHECK_EQ(rx[0].len, hdr + 9 * 1448 + 100);
		CHECK_EQ(rx[0].vh.flags, VNET_F_DATA_VALID);
		CHECK_EQ(rx[0].vh.gso_type,
			 v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4);
		CHECK_EQ(rx[0].vh.gso_size, 1448);
		check_ip(&rx[0]);
		CHECK_EQ(rx[0].data[hdr - 7], TCP_FLAG_ACK | TCP_FLAG_PSH);
		for (uint32_t i = 0; i < rx[0].len - hdr; i++)
			CHECK_EQ(rx[0].data[hdr + i],
				 byte_at(&s.ends, 1000 + i));
	}
}

/* apart() - Two segments, the second changed by @what, stay two */
static void apart(unsigned what)
{
	struct segment s = first(false);
	uint8_t *frame;

	clear();
	if (what == 0)
		s.flags |= TCP_FLAG_PSH; /* the first one says: now */
	add(&s);
	s.seq += s.len;
	if (what == 1)
		s.seq++;
	if (what == 2)
		s.ack++;
	if (what == 3)
		s.flags |= TCP_FLAG_FIN;
	if (what == 4)
		s.ends.sport++;
	if (what == 5)
		s.ends.host++;
	if (what == 6)
		s.len++;
	if (what == 7)
		s.flags |= TCP_FLAG_URG;
	frame = add(&s);
	if (what == 8)
		frame[ETH_HLEN_ + 1] = 4; /* TOS: and a wrong checksum */
	if (what == 9)
		frame[60] ^= 1;
	if (what == 10)
		frame[ETH_ALEN_] ^= 1; /* other source MAC */
	if (what == 11) {
		frame[ETH_HLEN_ + 34] ^= 1; /* window */
		sum_tcp(frame, rx[1].len, false);
	}
	CHECK_EQ(merge_batch(rx, n), 2);
	CHECK_EQ(rx[0].vh.gso_type, VNET_GSO_NONE);
	CHECK_EQ(rx[1].vh.gso_type, VNET_GSO_NONE);
	CHECK_EQ(rx[1].data - rx[0].data, (long)rx[0].len + 4);
}

static void what_differs_stays_apart(void)
{
	for (unsigned what = 0; what < 12; what++)
		apart(what);
}

static void wrong_checksum_is_not_vouched_for(void)
{
	struct segment s = first(false);

	clear();
	add(&s)[100] ^= 4;
	s.seq += s.len;
	add(&s);
	CHECK_EQ(merge_batch(rx, n), 2);
	CHECK_EQ(rx[0].vh.flags, 0);
	CHECK_EQ(rx[1].vh.flags, VNET_F_DATA_VALID);
}

static void a_super_segment_has_an_end(void)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment s = first(v6);
		unsigned left;
		uint64_t sum = 0;

		clear();
		for (unsigned i = 0; i < FRAMES; i++, s.seq += s.len)
			add(&s);
		left = merge_batch(rx, n);
		CHECK_EQ(left, 3);
		for (unsigned i = 0; i < left; i++) {
			CHECK(rx[i].len <= TAP_FRAME_MAX);
			check_ip(&rx[i]);
			sum += rx[i].len - ETH_HLEN_ - (v6 ? 60 : 40);
		}
		CHECK_EQ(sum, FRAMES * 1448);
	}
}

static void padding_behind_a_short_segment_goes(void)
{
	struct segment s = first(false);

	clear();
	s.len = 2;
	add(&s);
	memset(buf + fill, 0xee, 4);
	fill += 4;
	rx[0].len = 60;
	s.seq += 2;
	add(&s);
	CHECK_EQ(merge_batch(rx, n), 1);
	CHECK_EQ(rx[0].len, 54 + 4);
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQ(rx[0].data[54 + i], byte_at(&s.ends, 1000 + i));
}

/* random_batch() - Streams of some flows, mixed, with every kind of spoiling */
static void random_batch(struct test_random *rnd)
{
	struct segment s[FLOWS];
	unsigned now = 0;

	clear();
	for (unsigned i = 0; i < FLOWS; i++) {
		s[i] = first(test_below(rnd, 2));
		s[i].ends.sport = (uint16_t)(40000 + i);
		s[i].seq = (uint32_t)test_random64(rnd);
	}
	while (n < FRAMES) {
		struct segment *next;
		uint8_t *frame;

		if (!test_below(rnd, 8))
			now = test_below(rnd, FLOWS);
		next = &s[now];
		next->len = test_below(rnd, 4) ? 1448 : test_below(rnd, 1449);
		next->flags = TCP_FLAG_ACK;
		if (!test_below(rnd, 6))
			next->flags |= TCP_FLAG_PSH;
		if (!test_below(rnd, 20))
			next->ack++;
		if (!test_below(rnd, 20))
			next->seq += 1448; /* one was lost */
		frame = add(next);
		next->seq += next->len;
		if (!test_below(rnd, 30))
			frame[test_below(rnd, rx[n - 1].len)] ^= 0x10;
		if (!test_below(rnd, 30))
			rx[n - 1].len = test_below(rnd, rx[n - 1].len + 1);
	}
}

/** struct bytes - What a batch carries, flattened: headers do not count */
struct bytes {
	uint64_t segments;
	uint64_t len;
	uint64_t hash;
};

static void mix(struct bytes *b, uint64_t value)
{
	b->hash = (b->hash ^ value) * 0x100000001b3ULL;
}

/* add_payload() - Each byte with its flow and sequence number, in order */
static void add_payload(struct bytes *b, const struct tap_rx *r)
{
	uint32_t l4 = ETH_HLEN_ + (r->data[14] >> 4 == 6 ? 40 : 20), seq;

	memcpy(&seq, r->data + l4 + 4, 4);
	seq = ntohl(seq);
	for (uint32_t i = l4 + 20; i < r->len; i++, b->len++) {
		mix(b, r->data[l4 + 1]);
		mix(b, seq++);
		mix(b, r->data[i]);
	}
}

/* is_sound() - Is it a segment of ours that was not spoiled? */
static bool is_sound(const struct tap_rx *r)
{
	bool v6 = r->data[12] == 0x86;
	uint32_t l4 = ETH_HLEN_ + (v6 ? 40 : 20);
	uint8_t copy[4096];
	struct tcp_hdr *th = (struct tcp_hdr *)(copy + l4);
	uint16_t check;

	if (r->len < l4 + 20 || r->data[l4 + 12] != 5 << 4 ||
	    (v6 ? r->data[18] << 8 | r->data[19] :
		  (r->data[16] << 8 | r->data[17]) - 20) !=
		    (int)(r->len - l4) ||
	    (!v6 && csum_fold(csum_add(r->data + 14, 20, 0)) != 0xffff))
		return false;
	memcpy(copy, r->data, r->len);
	check = th->check;
	sum_tcp(copy, r->len, v6);
	return check == th->check;
}

static void no_byte_is_lost_or_moved(void)
{
	struct test_random rnd = { .state = 42 };

	for (unsigned round = 0; round < 500; round++) {
		struct bytes before = { .hash = 1 }, after = { .hash = 1 };
		unsigned left, spoiled = 0, whole = 0;

		random_batch(&rnd);
		for (unsigned i = 0; i < n; i++) {
			if (is_sound(&rx[i]))
				add_payload(&before, &rx[i]);
			else
				spoiled++;
		}
		left = merge_batch(rx, n);
		CHECK(left <= n);
		for (unsigned i = 0; i < left; i++) {
			if (rx[i].vh.flags == VNET_F_DATA_VALID) {
				check_ip(&rx[i]);
				add_payload(&after, &rx[i]);
				whole += rx[i].vh.gso_type != VNET_GSO_NONE;
			} else if (is_sound(&rx[i])) {
				add_payload(&after, &rx[i]);
			} else {
				spoiled--;
			}
		}
		CHECK_EQ(after.len, before.len);
		CHECK_EQ(after.hash, before.hash);
		CHECK_EQ(spoiled, 0);
		CHECK(whole > 0);
	}
}

int main(void)
{
	RUN(segments_in_a_row_become_one);
	RUN(what_differs_stays_apart);
	RUN(wrong_checksum_is_not_vouched_for);
	RUN(a_super_segment_has_an_end);
	RUN(padding_behind_a_short_segment_goes);
	RUN(no_byte_is_lost_or_moved);
	return 0;
}
