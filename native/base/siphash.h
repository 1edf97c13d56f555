/* SPDX-License-Identifier: GPL-2.0-or-later */
/* siphash.h - SipHash-2-4 (Aumasson, Bernstein 2012), keyed, 64-bit result */
#ifndef PASSTPY_BASE_SIPHASH_H
#define PASSTPY_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/** struct siphash_key - 128-bit secret, little-endian words as in the paper */
struct siphash_key {
	uint64_t k[2];
};

uint64_t siphash(const struct siphash_key *key, const void *data, size_t len);

#endif /* PASSTPY_BASE_SIPHASH_H */
