/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inany.h - One type for an IPv4 or an IPv6 address
 *
 * Owns: the 16-byte address in which IPv4 lives as a v4-mapped IPv6 address
 * (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2), so that the flow table, its
 * hash and the border to Python need one form only. All bytes are in network
 * order. The unspecified address of either family is told by inany_is_any().
 */
#ifndef PASSTPY_BASE_INANY_H
#define PASSTPY_BASE_INANY_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/**
 * union inany - IPv4 or IPv6 address, 16 bytes, network order
 * @a6:		IPv6 address, or v4-mapped address
 * @v4:		The same bytes seen as a v4-mapped address
 * @w:		The same bytes as two words, for comparing
 */
union inany {
	struct in6_addr a6;
	struct {
		uint8_t zero[10];
		uint8_t one[2];
		struct in_addr a4;
	} v4;
	uint64_t w[2];
};

/** union sockaddr_inany - Socket address of either family */
union sockaddr_inany {
	struct sockaddr sa;
	struct sockaddr_in sa4;
	struct sockaddr_in6 sa6;
};

static inline bool inany_is_v4(const union inany *a)
{
	return IN6_IS_ADDR_V4MAPPED(&a->a6);
}

static inline bool inany_equal(const union inany *a, const union inany *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1];
}

/* inany_is_any() - Is @a ::, or 0.0.0.0 in v4-mapped form? */
static inline bool inany_is_any(const union inany *a)
{
	return IN6_IS_ADDR_UNSPECIFIED(&a->a6) ||
	       (inany_is_v4(a) && !a->v4.a4.s_addr);
}

static inline void inany_from_v4(union inany *a, struct in_addr a4)
{
	memset(a, 0, sizeof(*a));
	a->v4.one[0] = a->v4.one[1] = 0xff;
	a->v4.a4 = a4;
}

static inline void inany_from_v6(union inany *a, const struct in6_addr *a6)
{
	a->a6 = *a6;
}

/* inany_is_unicast() - Neither unspecified, multicast nor limited broadcast */
static inline bool inany_is_unicast(const union inany *a)
{
	if (inany_is_v4(a)) {
		uint32_t host = ntohl(a->v4.a4.s_addr);

		return host && (host >> 28) != 0xe && host != 0xffffffff;
	}
	return !IN6_IS_ADDR_UNSPECIFIED(&a->a6) && a->a6.s6_addr[0] != 0xff;
}

static inline bool inany_is_loopback(const union inany *a)
{
	if (inany_is_v4(a))
		return (ntohl(a->v4.a4.s_addr) >> 24) == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->a6);
}

static inline bool inany_is_linklocal6(const union inany *a)
{
	return IN6_IS_ADDR_LINKLOCAL(&a->a6);
}

/**
 * inany_to_sa() - Make a socket address
 * @sa:		Filled with an AF_INET address if @a is IPv4, else AF_INET6
 * @a:		Address
 * @port:	Port, host order
 * @scope_id:	Interface index for IPv6 link-local addresses, or 0
 *
 * Return: length of the socket address in bytes
 */
static inline socklen_t inany_to_sa(union sockaddr_inany *sa,
				    const union inany *a, uint16_t port,
				    uint32_t scope_id)
{
	memset(sa, 0, sizeof(*sa));
	if (inany_is_v4(a)) {
		sa->sa4.sin_family = AF_INET;
		sa->sa4.sin_addr = a->v4.a4;
		sa->sa4.sin_port = htons(port);
		return sizeof(sa->sa4);
	}
	sa->sa6.sin6_family = AF_INET6;
	sa->sa6.sin6_addr = a->a6;
	sa->sa6.sin6_port = htons(port);
	if (IN6_IS_ADDR_LINKLOCAL(&a->a6))
		sa->sa6.sin6_scope_id = scope_id;
	return sizeof(sa->sa6);
}

/**
 * inany_from_sa() - Read address and port out of a socket address
 * @a:		Filled; v4-mapped form for AF_INET
 * @port:	Filled, host order
 * @sa:		Socket address as the kernel gave it
 *
 * Return: 0, -EAFNOSUPPORT for another family (nothing is filled then)
 */
int inany_from_sa(union inany *a, uint16_t *port,
		  const union sockaddr_inany *sa);

#endif /* PASSTPY_BASE_INANY_H */
