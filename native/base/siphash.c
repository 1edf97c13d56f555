/* SPDX-License-Identifier: GPL-2.0-or-later */
/* siphash.c - SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input
 * PRF", 2012), two rounds for each word and four to finish
 */

#include "base/siphash.h"

#include <endian.h>
#include <string.h>

static inline uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

#define SIP_ROUND(v0, v1, v2, v3)           \
	do {                                \
		(v0) += (v1);               \
		(v2) += (v3);               \
		(v1) = rotl(v1, 13) ^ (v0); \
		(v3) = rotl(v3, 16) ^ (v2); \
		(v0) = rotl(v0, 32);        \
		(v2) += (v1);               \
		(v0) += (v3);               \
		(v1) = rotl(v1, 17) ^ (v2); \
		(v3) = rotl(v3, 21) ^ (v0); \
		(v2) = rotl(v2, 32);        \
	} while (0)

/**
 * siphash() - Keyed hash of some bytes
 * @key:	Secret
 * @data:	Bytes, at any address
 * @len:	Number of bytes
 *
 * Return: 64-bit hash
 */
uint64_t siphash(const struct siphash_key *key, const void *data, size_t len)
{
	uint64_t v0 = key->k[0] ^ 0x736f6d6570736575ULL;
	uint64_t v1 = key->k[1] ^ 0x646f72616e646f6dULL;
	uint64_t v2 = key->k[0] ^ 0x6c7967656e657261ULL;
	uint64_t v3 = key->k[1] ^ 0x7465646279746573ULL;
	uint64_t last = (uint64_t)len << 56;
	const unsigned char *p = data;
	uint64_t m;

	for (; len >= sizeof(m); len -= sizeof(m), p += sizeof(m)) {
		memcpy(&m, p, sizeof(m));
		m = le64toh(m);
		v3 ^= m;
		SIP_ROUND(v0, v1, v2, v3);
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= m;
	}

	m = 0;
	memcpy(&m, p, len);
	last |= le64toh(m);
	v3 ^= last;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= last;

	v2 ^= 0xff;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}
