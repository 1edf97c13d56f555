/* SPDX-License-Identifier: GPL-2.0-or-later */
/* checksum.h - Internet checksum (RFC 1071) */
#ifndef PASSTPY_BASE_CHECKSUM_H
#define PASSTPY_BASE_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/inany.h"

/**
 * csum_add() - Add bytes to an unfolded one's complement sum
 * @data:	Bytes; an odd length is padded with a zero byte
 * @len:	Length in bytes
 * @sum:	Sum so far
 *
 * Return: the new sum, in memory (network) order of 16-bit words, unfolded
 */
uint64_t csum_add(const void *data, size_t len, uint64_t sum);

/* csum_add_portable() - The same as on a processor without AVX2, for tests */
uint64_t csum_add_portable(const void *data, size_t len, uint64_t sum);

/* csum_fold() - Fold to 16 bits; NOT complemented, ready to store as it is */
uint16_t csum_fold(uint64_t sum);

/**
 * csum_iov() - Sum over scattered bytes
 * @sum:	Folded sum of the bytes before
 * @odd:	Their number is odd
 *
 * A piece of odd length shifts the words of all that follow by one byte, which
 * in one's complement is a byte swap of their folded sum (RFC 1071 2(B)).
 *
 * Return: the folded sum, not complemented
 */
uint16_t csum_iov(const struct iovec *iov, unsigned n, uint16_t sum, bool odd);

/**
 * csum_pseudo() - Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1)
 * @src:	Source address
 * @dst:	Destination address, same family as @src
 * @proto:	IP protocol number
 * @len:	Length of L4 header and payload, bytes
 */
uint64_t csum_pseudo(const union inany *src, const union inany *dst,
		     uint8_t proto, uint32_t len);

#endif /* PASSTPY_BASE_CHECKSUM_H */
