/* SPDX-License-Identifier: GPL-2.0-or-later */
/* proxy.c - Headers of the PROXY protocol, versions 1 (text) and 2 (binary) */

#include "proto/proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V2_PROXY 0x21 /* version 2, for somebody else */
#define V2_LOCAL 0x20 /* version 2, and there is nothing to tell */
#define V2_TCP4	 0x11
#define V2_TCP6	 0x21

/** struct proxy_v2 - What every header of version 2 begins with
 * @magic:	What no other protocol begins with
 * @command:	V2_PROXY or V2_LOCAL
 * @family:	Of the addresses, and the protocol
 * @len:	Bytes that follow, network order
 */
struct proxy_v2 {
	uint8_t magic[12];
	uint8_t command;
	uint8_t family;
	uint16_t len;
} __attribute__((packed));

/* bytes_of() - An address as its own family writes it */
static const void *bytes_of(const union inany *addr, bool v4)
{
	return v4 ? (const void *)&addr->v4.a4 : &addr->a6;
}

/* Version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 40000 80", CR, LF */
static uint32_t header_v1(uint8_t *buf, const struct flowside *client, bool v4)
{
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
	int af = v4 ? AF_INET : AF_INET6;

	inet_ntop(af, bytes_of(&client->eaddr, v4), from, sizeof(from));
	inet_ntop(af, bytes_of(&client->oaddr, v4), to, sizeof(to));
	return (uint32_t)snprintf((char *)buf, PROXY_HEADER_MAX,
				  "PROXY TCP%c %s %s %u %u\r\n", v4 ? '4' : '6',
				  from, to, client->eport, client->oport);
}

/* put_head() - Begin a header of version 2; where it goes on */
static uint8_t *put_head(uint8_t *buf, uint8_t command, uint8_t family,
			 size_t len)
{
	struct proxy_v2 head = {
		.magic = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I',
			   'T', '\n' },
		.command = command,
		.family = family,
		.len = htons((uint16_t)len),
	};

	memcpy(buf, &head, sizeof(head));
	return buf + sizeof(head);
}

static uint32_t header_v2(uint8_t *buf, const struct flowside *client, bool v4)
{
	size_t size = v4 ? sizeof(struct in_addr) : sizeof(struct in6_addr);
	uint16_t ports[] = { htons(client->eport), htons(client->oport) };
	uint8_t *to = put_head(buf, V2_PROXY, v4 ? V2_TCP4 : V2_TCP6,
			       2 * size + sizeof(ports));

	memcpy(to, bytes_of(&client->eaddr, v4), size);
	memcpy(to + size, bytes_of(&client->oaddr, v4), size);
	to += 2 * size;
	memcpy(to, ports, sizeof(ports));
	return (uint32_t)(to + sizeof(ports) - buf);
}

/* Of a client without addresses: "the receiver must use the real connection
 * endpoints", in both versions */
static uint32_t header_of_nobody(uint8_t *buf, uint8_t version)
{
	static const char v1[] = "PROXY UNKNOWN\r\n";

	if (version != 1)
		return (uint32_t)(put_head(buf, V2_LOCAL, 0, 0) - buf);
	memcpy(buf, v1, sizeof(v1) - 1);
	return sizeof(v1) - 1;
}

uint32_t proxy_header(uint8_t *buf, uint8_t version,
		      const struct flowside *client)
{
	bool v4 = client && inany_is_v4(&client->eaddr);

	if (!client)
		return header_of_nobody(buf, version);

	return version == 1 ? header_v1(buf, client, v4) :
			      header_v2(buf, client, v4);
}
