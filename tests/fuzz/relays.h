/* SPDX-License-Identifier: GPL-2.0-or-later */
/* relays.h - A SOCKS5 proxy that passes datagrams on, and what it says before each */
#ifndef PASSTPY_TESTS_RELAYS_H
#define PASSTPY_TESTS_RELAYS_H

#include "peers.h"

enum { HEAD_IPV4 = 1, HEAD_NAME = 3, HEAD_IPV6 = 4 };

/* any_head() - Whom a datagram is for, or who sent it: RFC 1928 section 7 */
static inline size_t any_head(uint8_t head[RELAY_HEAD_MAX])
{
	static const uint8_t types[] = { HEAD_IPV4, HEAD_NAME, HEAD_IPV6 };
	size_t len = 4;

	memset(head, 0, RELAY_HEAD_MAX);
	head[3] = types[below(3)];
	if (head[3] == HEAD_NAME)
		head[len++] = (uint8_t)below(256);
	len += head[3] == HEAD_IPV4 ? 4 : head[3] == HEAD_IPV6 ? 16 : head[4];
	head[len++] = 0; /* one of few ports */
	head[len++] = (uint8_t)below(4);
	if (one_in(20))
		any_bytes(head, 5);
	return one_in(20) ? below(RELAY_HEAD_MAX + 1) : len;
}

/* relay_socket() - What a verdict brings for datagrams that leave through it */
static inline int relay_socket(struct relay *relay)
{
	struct sockaddr_in6 sa = loopback(world.relay_port, one_in(2));
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	relay->control = join();
	relay->len = (uint16_t)any_head(relay->head);
	return fd;
}

/* play_relay() - It answers, from where it was asked to or from elsewhere, and not
 * always as it should */
static inline void play_relay(void)
{
	uint8_t head[RELAY_HEAD_MAX];
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	ssize_t n = recvfrom(world.relay_fd, sink, sizeof(sink), 0,
			     (struct sockaddr *)&sa, &len);

	if (n < 0)
		return;
	for (uint32_t k = 1 + below(4); k; k--) {
		if (one_in(2)) {
			size_t other = any_head(head);

			memcpy(sink, head, MIN(other, (size_t)n));
		}
		if (one_in(8))
			sink[below(8)] ^= (uint8_t)below(256);
		(void)sendto(world.relay_fd, sink,
			     one_in(8) ? below((uint32_t)n + 1) : (size_t)n, 0,
			     (struct sockaddr *)&sa, len);
	}
}

#endif /* PASSTPY_TESTS_RELAYS_H */
