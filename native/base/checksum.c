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

/* csum_blocks() - Sum of whole blocks, @len at most CSUM_CHUNK */
static uint64_t csum_blocks(const uint8_t *p, size_t len)
{
	const lanes_t low = { 0xffffffff, 0xffffffff };
	lanes_t even0 = { 0, 0 }, odd0 = { 0, 0 };
	lanes_t even1 = { 0, 0 }, odd1 = { 0, 0 };
	uint64_t sum;

	for (; len >= CSUM_BLOCK; len -= CSUM_BLOCK, p += CSUM_BLOCK) {
		lanes_t a = load(p), b = load(p + 16);
		lanes_t c = load(p + 32), d = load(p + 48);

		even0 += (a & low) + (b & low);
		odd0 += (a >> 32) + (b >> 32);
		even1 += (c & low) + (d & low);
		odd1 += (c >> 32) + (d >> 32);
	}
	even0 += even1;
	odd0 += odd1;

	/* Odd words weigh 2^32, which is 1 modulo 2^16 - 1 */
	sum = add_carry(even0[0], even0[1]);
	sum = add_carry(sum, odd0[0]);
	return add_carry(sum, odd0[1]);
}

uint64_t csum_add(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *p = data;
	uint64_t w;

	while (len >= CSUM_BLOCK) {
		size_t n = len < CSUM_CHUNK ? len : CSUM_CHUNK;

		n -= n % CSUM_BLOCK;
		sum = add_carry(sum, csum_blocks(p, n));
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
