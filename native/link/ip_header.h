/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ip_header.h - Building an IPv4 or IPv6 header */
#ifndef PASSTPY_LINK_IP_HEADER_H
#define PASSTPY_LINK_IP_HEADER_H

#include <stdint.h>

#include "base/inany.h"

/**
 * ip_header() - An IP header alone, of the family of @src
 * @to:		Where; 40 bytes are enough
 * @src:	Source address
 * @dst:	Destination address, same family
 * @proto:	IPPROTO_*
 * @len:	Bytes behind the header
 * @ttl:	TTL or hop limit
 *
 * DF is set and the IPv4 id is 0 (RFC 6864: atomic datagram).
 *
 * Return: bytes of it
 */
uint32_t ip_header(uint8_t *to, const union inany *src, const union inany *dst,
		   uint8_t proto, uint32_t len, uint8_t ttl);

#endif /* PASSTPY_LINK_IP_HEADER_H */
