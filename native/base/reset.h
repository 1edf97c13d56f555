/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reset.h - Has close() reset a TCP connection, where its peer would else take
 * what it got so far for everything that was to come
 */
#ifndef PASSTPY_BASE_RESET_H
#define PASSTPY_BASE_RESET_H

#include <sys/socket.h>

#include "base/sys.h"

/* reset_on_close() - close() is to send a RST, and no FIN; for a socket that is
 * no TCP one nothing changes */
static inline void reset_on_close(int fd)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	(void)sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

#endif /* PASSTPY_BASE_RESET_H */
