/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers of the PROXY protocol, byte by byte */

#include <arpa/inet.h>
#include <string.h>

#include "proto/proxy.h"
#include "test.h"

static const uint8_t v2_tcp4[] = {
	'\r', '\n', '\r', '\n', 0,    '\r', '\n', 'Q',	'U', 'I',
	'T',  '\n', 0x21, 0x11, 0,    12,   192,  0,	2,   7,
	203,  0,    113,  9,	0x9c, 0x40, 0x1f, 0x90,
};

static const uint8_t v2_tcp6[] = {
	'\r', '\n', '\r', '\n', 0,    '\r', '\n', 'Q',	'U',  'I', 'T',
	'\n', 0x21, 0x21, 0,	36,   0x20, 0x01, 0x0d, 0xb8, 0,   0,
	0,    0,    0,	  0,	0,    0,    0,	  0,	0,    7,   0x20,
	0x01, 0x0d, 0xb8, 0,	1,    0,    0,	  0,	0,    0,   0,
	0,    0,    0,	  9,	0x9c, 0x40, 0x1f, 0x90,
};

static const uint8_t v2_nobody[] = {
	'\r', '\n', '\r', '\n', 0,    '\r', '\n', 'Q',
	'U',  'I',  'T',  '\n', 0x20, 0,    0,	  0,
};

static struct flowside client(const char *from, const char *to)
{
	struct flowside side = { .eport = 40000, .oport = 8080 };

	CHECK_EQ(inet_pton(AF_INET6, from, &side.eaddr), 1);
	CHECK_EQ(inet_pton(AF_INET6, to, &side.oaddr), 1);
	return side;
}

static void is_header(uint8_t version, const struct flowside *side,
		      const void *bytes, size_t len)
{
	uint8_t got[PROXY_HEADER_MAX];

	CHECK_EQ(proxy_header(got, version, side), len);
	CHECK_EQ(memcmp(got, bytes, len), 0);
}

int main(void)
{
	struct flowside v4 = client("::ffff:192.0.2.7", "::ffff:203.0.113.9");
	struct flowside v6 = client("2001:db8::7", "2001:db8:1::9");
	struct flowside longest =
		client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		       "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
	static const char text4[] =
		"PROXY TCP4 192.0.2.7 203.0.113.9 40000 8080\r\n";
	static const char text6[] =
		"PROXY TCP6 2001:db8::7 2001:db8:1::9 40000 8080\r\n";
	static const char text_long[] =
		"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n";

	static const char text_nobody[] = "PROXY UNKNOWN\r\n";

	is_header(1, &v4, text4, sizeof(text4) - 1);
	is_header(1, &v6, text6, sizeof(text6) - 1);
	longest.eport = longest.oport = 65535;
	is_header(1, &longest, text_long, sizeof(text_long) - 1);
	is_header(2, &v4, v2_tcp4, sizeof(v2_tcp4));
	is_header(2, &v6, v2_tcp6, sizeof(v2_tcp6));
	is_header(1, NULL, text_nobody, sizeof(text_nobody) - 1);
	is_header(2, NULL, v2_nobody, sizeof(v2_nobody));
	return 0;
}
