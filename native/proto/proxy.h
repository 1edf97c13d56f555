/* SPDX-License-Identifier: GPL-2.0-or-later */
/* proxy.h - Tells a server who its client is: HAProxy's PROXY protocol
 *
 * A header goes before the first byte of a connection's stream, and names the
 * client's addresses as we have accepted it. See haproxy's proxy-protocol.txt.
 */
#ifndef PASSTPY_PROTO_PROXY_H
#define PASSTPY_PROTO_PROXY_H

#include <stdint.h>

#include "table/flow.h"

#define PROXY_HEADER_MAX 108 /* of version 1, with its end of string */

/**
 * proxy_header() - Make the header for a connection
 * @buf:	PROXY_HEADER_MAX bytes
 * @version:	1 or 2
 * @client:	The side that was accepted; NULL: it came by a UNIX socket, which
 *		has no addresses, and that is what the server is told
 *
 * Return: its length, bytes
 */
uint32_t proxy_header(uint8_t *buf, uint8_t version,
		      const struct flowside *client);

#endif /* PASSTPY_PROTO_PROXY_H */
