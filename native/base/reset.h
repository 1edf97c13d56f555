/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reset.h - A TCP connection ends by a reset: no end is made up for its peer */
#ifndef PASSTPY_BASE_RESET_H
#define PASSTPY_BASE_RESET_H

#include <sys/socket.h>

#include "base/sys.h"

/* reset_on_close() - close() is to send a RST, and no FIN; what is no TCP socket
 * takes no notice */
static inline void reset_on_close(int fd)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	(void)sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

#endif /* PASSTPY_BASE_RESET_H */
