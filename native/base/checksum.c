/* SPDX-License-Identifier: GPL-2.0-or-later */
/* checksum.c - Internet checksum (RFC 1071)
 *
 * One's complement addition works in any word size and byte order, as long as
 * carries come back in at the other end (RFC 1071 section 2): so we add what
 * memory holds, many 32-bit words at a time into 64-bit lanes, which cannot
 * overflow within a frame, and fold at the end.
 */

#include "base/checksum.h"

#include <string.h>

/** typedef lanes_t - What one vector register takes on any x86-64 or arm64 */
typedef uint64_t lanes_t __attribute__((vector_size(16)));

/** typedef wide_t - The same with AVX2 */
typedef uint64_t wide_t __attribute__((vector_size(32)));

#define CSUM_BLOCK 64	      /* bytes of one unrolled step */
#define CSUM_CHUNK (1U << 30) /* bytes after which lanes are folded */

static inline uint64_t add_carry(uint64_t a, uint64_t b)
{
	uint64_t sum = a + b;

	return sum + (sum < a);
}

static inline lanes_t load(const uint8_t *p)
{
	lanes_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/**
 * lane_sum() - Sum of a lane's 32-bit words
 * @all:	Sum of the lane's 64-bit words, modulo 2^64
 * @odd:	Sum of their upper halves, which cannot overflow
 *
 * The lower halves cannot overflow either, so what is lacking in @all comes out
 * right again when the upper halves are taken away. Those weigh 2^32, which is
 * 1 modulo 2^16 - 1.
 */
static inline uint64_t lane_sum(uint64_t all, uint64_t odd)
{
	return add_carry(all - (odd << 32), odd);
}

/* csum_blocks() - Sum of whole blocks, @len at most CSUM_CHUNK */
static uint64_t csum_blocks(const uint8_t *p, size_t len)
{
	lanes_t all0 = { 0, 0 }, odd0 = { 0, 0 };
	lanes_t all1 = { 0, 0 }, odd1 = { 0, 0 };

	for (; len >= CSUM_BLOCK; len -= CSUM_BLOCK, p += CSUM_BLOCK) {
		lanes_t a = load(p), b = load(p + 16);
		lanes_t c = load(p + 32), d = load(p + 48);

		all0 += a + b;
		odd0 += (a >> 32) + (b >> 32);
		all1 += c + d;
		odd1 += (c >> 32) + (d >> 32);
	}
	all0 += all1;
	odd0 += odd1;
	return add_carry(lane_sum(all0[0], odd0[0]),
			 lane_sum(all0[1], odd0[1]));
}

#if defined(__x86_64__)

/* csum_blocks_avx2() - The same, twice as much at a time */
__attribute__((target("avx2"))) static uint64_t
csum_blocks_avx2(const uint8_t *p, size_t len)
{
	wide_t all0 = { 0 }, odd0 = { 0 }, all1 = { 0 }, odd1 = { 0 };
	uint64_t sum = 0;

	for (; len >= CSUM_BLOCK; len -= CSUM_BLOCK, p += CSUM_BLOCK) {
		wide_t a, b;

		memcpy(&a, p, sizeof(a));
		memcpy(&b, p + sizeof(a), sizeof(b));
		all0 += a;
		odd0 += a >> 32;
		all1 += b;
		odd1 += b >> 32;
	}
	all0 += all1;
	odd0 += odd1;
	for (int i = 0; i < 4; i++)
		sum = add_carry(sum, lane_sum(all0[i], odd0[i]));
	return sum;
}

static bool have_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

#else

#define csum_blocks_avx2 csum_blocks

static bool have_avx2(void)
{
	return false;
}

#endif

static inline uint64_t add(const void *data, size_t len, uint64_t sum,
			   bool avx2)
{
	const uint8_t *p = data;
	uint64_t w;

	while (len >= CSUM_BLOCK) {
		size_t n = len < CSUM_CHUNK ? len : CSUM_CHUNK;

		n -= n % CSUM_BLOCK;
		sum = add_carry(sum, avx2 ? csum_blocks_avx2(p, n) :
					    csum_blocks(p, n));
		p += n;
		len -= n;
	}
	for (; len >= sizeof(w); len -= sizeof(w), p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		sum = add_carry(sum, w);
	}
	if (len) {
		w = 0;
		memcpy(&w, p, len);
		sum = add_carry(sum, w);
	}
	return sum;
}

uint64_t csum_add(const void *data, size_t len, uint64_t sum)
{
	return add(data, len, sum, len >= CSUM_BLOCK && have_avx2());
}

uint64_t csum_add_portable(const void *data, size_t len, uint64_t sum)
{
	return add(data, len, sum, false);
}

uint16_t csum_fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)((sum >> 16) + (sum & 0xffff));
}

uint64_t csum_pseudo(const union inany *src, const union inany *dst,
		     uint8_t proto, uint32_t len)
{
	uint64_t sum = (uint64_t)htonl(len) + htonl(proto);

	if (inany_is_v4(src))
		return sum + src->v4.a4.s_addr + dst->v4.a4.s_addr;

	sum = add_carry(sum, src->w[0]);
	sum = add_carry(sum, src->w[1]);
	sum = add_carry(sum, dst->w[0]);
	return add_carry(sum, dst->w[1]);
}

uint16_t csum_iov(const struct iovec *iov, unsigned n, uint16_t sum, bool odd)
{
	uint64_t total = sum;

	for (unsigned i = 0; i < n; i++) {
		uint16_t piece =
			csum_fold(csum_add(iov[i].iov_base, iov[i].iov_len, 0));

		if (odd)
			piece = (uint16_t)(piece << 8 | piece >> 8);
		total += piece; /* 64 bits: no carry gets lost */
		odd ^= iov[i].iov_len & 1;
	}
	return csum_fold(total);
}
