/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inany.c - Reading socket addresses; the rest of inany is inline */

#include "base/inany.h"

#include <errno.h>

int inany_from_sa(union inany *a, uint16_t *port,
		  const union sockaddr_inany *sa)
{
	switch (sa->sa.sa_family) {
	case AF_INET:
		inany_from_v4(a, sa->sa4.sin_addr);
		*port = ntohs(sa->sa4.sin_port);
		return 0;
	case AF_INET6:
		inany_from_v6(a, &sa->sa6.sin6_addr);
		*port = ntohs(sa->sa6.sin6_port);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}
