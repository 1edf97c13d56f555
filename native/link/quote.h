/* SPDX-License-Identifier: GPL-2.0-or-later */
/* quote.h - Packets of ours that the guest's ICMP errors bring back */
#ifndef PASSTPY_LINK_QUOTE_H
#define PASSTPY_LINK_QUOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/wire.h"
#include "table/flow.h"

/* quote_is_refusal() - Is it "port unreachable"? (RFC 792, RFC 4443 3.1) */
bool quote_is_refusal(bool v4, const struct icmp_hdr *ih);

/**
 * quote_udp() - Ends of a UDP datagram that an ICMP error quotes
 * @at:		The quoted packet, from its IP header on
 * @len:	Bytes of it that came
 * @key:	Filled as if the guest had answered: the quoted destination is
 *		the endpoint
 *
 * Return: false if it is no UDP datagram, or if the quote ends before its ports
 */
bool quote_udp(const uint8_t *at, uint32_t len, bool v4, struct flowside *key);

#endif /* PASSTPY_LINK_QUOTE_H */
