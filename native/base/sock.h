/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sock.h - Tells of what kind a socket is that somebody else made */
#ifndef PASSTPY_BASE_SOCK_H
#define PASSTPY_BASE_SOCK_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/sys.h"

/* sock_family() - AF_*, or AF_UNSPEC if that cannot be told */
static inline int sock_family(int fd)
{
	int family = AF_UNSPEC;
	socklen_t len = sizeof(family);

	return sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) ?
		       AF_UNSPEC :
		       family;
}

/* sock_is_unix() - Is it a UNIX one, whose peer has neither address nor port? */
static inline bool sock_is_unix(int fd)
{
	return sock_family(fd) == AF_UNIX;
}

#endif /* PASSTPY_BASE_SOCK_H */
