/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sys.h - System calls and allocations that may fail, each by a name of ours
 *
 * sys_recv() is recv(), and nothing else in what is shipped. A build with
 * PASSTPY_FAULTS makes a place of each call: a test lists all of them, and has
 * any fail as the kernel would (faults.h). So this table is also the list of
 * what the datapath asks the kernel for; what it may use besides, because it
 * cannot fail, is listed in tests/house/sys_calls.py.
 *
 * A row: what a failed call returns, and errors that the kernel may give.
 */
#ifndef PASSTPY_BASE_SYS_H
#define PASSTPY_BASE_SYS_H

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef PASSTPY_FAULTS
#include "base/faults.h"
#define SYS(call, failed, errors, ...) \
	(FAULT_DUE(#call, ERRORS errors) ? (failed) : call(__VA_ARGS__))
#define ERRORS(...)         \
	{                   \
		__VA_ARGS__ \
	}
#else
#define SYS(call, failed, errors, ...) call(__VA_ARGS__)
#endif

/* Memory */
#define sys_aligned_alloc(...) SYS(aligned_alloc, NULL, (ENOMEM), __VA_ARGS__)
#define sys_calloc(...)	       SYS(calloc, NULL, (ENOMEM), __VA_ARGS__)
#define sys_madvise(...)       SYS(madvise, -1, (ENOMEM), __VA_ARGS__)
#define sys_malloc(...)	       SYS(malloc, NULL, (ENOMEM), __VA_ARGS__)
#define sys_mmap(...)	       SYS(mmap, MAP_FAILED, (ENOMEM), __VA_ARGS__)

/* Sockets. What TCP reads and writes is edge-triggered: an EAGAIN that nobody
 * follows up with an event would be a lie of the kernel, no fault. */
#define sys_accept4(...) SYS(accept4, -1, (EMFILE, ECONNABORTED), __VA_ARGS__)
#define sys_bind(...)	 SYS(bind, -1, (EADDRINUSE, EADDRNOTAVAIL), __VA_ARGS__)
#define sys_connect(...) \
	SYS(connect, -1, (ENETUNREACH, EADDRNOTAVAIL), __VA_ARGS__)
#define sys_getpeername(...) SYS(getpeername, -1, (ENOTCONN), __VA_ARGS__)
#define sys_getsockname(...) SYS(getsockname, -1, (ENOBUFS), __VA_ARGS__)
#define sys_getsockopt(...)  SYS(getsockopt, -1, (ENOBUFS), __VA_ARGS__)
#define sys_recv(...)	     SYS(recv, -1, (ECONNRESET, ENOMEM), __VA_ARGS__)
#define sys_recvmmsg(...)    SYS(recvmmsg, -1, (ECONNREFUSED, ENOMEM), __VA_ARGS__)
#define sys_recvmsg(...)     SYS(recvmsg, -1, (ECONNRESET, ENOMEM), __VA_ARGS__)
#define sys_send(...)	     SYS(send, -1, (ENETUNREACH, ENOBUFS), __VA_ARGS__)
#define sys_sendmmsg(...)    SYS(sendmmsg, -1, (EPERM, ENOBUFS), __VA_ARGS__)
#define sys_sendmsg(...)     SYS(sendmsg, -1, (EPIPE, ENOBUFS), __VA_ARGS__)
#define sys_setsockopt(...)  SYS(setsockopt, -1, (ENOPROTOOPT), __VA_ARGS__)
#define sys_shutdown(...)    SYS(shutdown, -1, (ENOTCONN), __VA_ARGS__)
#define sys_socket(...)	     SYS(socket, -1, (EMFILE, ENOBUFS), __VA_ARGS__)

/* Events, files and the rest */
#define sys_epoll_create1(...) SYS(epoll_create1, -1, (EMFILE), __VA_ARGS__)
#define sys_epoll_ctl(...)     SYS(epoll_ctl, -1, (ENOMEM, ENOSPC), __VA_ARGS__)
#define sys_epoll_pwait(...)   SYS(epoll_pwait, -1, (EINTR), __VA_ARGS__)
#define sys_fcntl(...)	       SYS(fcntl, -1, (EMFILE, EINVAL), __VA_ARGS__)
#define sys_fstat(...)	       SYS(fstat, -1, (EOVERFLOW), __VA_ARGS__)
#define sys_getrandom(...)     SYS(getrandom, -1, (EINTR), __VA_ARGS__)
#define sys_ioctl(...)	       SYS(ioctl, -1, (EINVAL), __VA_ARGS__)
#define sys_poll(...)	       SYS(poll, -1, (EINTR), __VA_ARGS__)
#define sys_pthread_create(...) \
	SYS(pthread_create, EAGAIN, (EAGAIN), __VA_ARGS__)
#define sys_read(...)		 SYS(read, -1, (EAGAIN, EIO), __VA_ARGS__)
#define sys_timerfd_create(...)	 SYS(timerfd_create, -1, (EMFILE), __VA_ARGS__)
#define sys_timerfd_settime(...) SYS(timerfd_settime, -1, (EINVAL), __VA_ARGS__)
#define sys_write(...)		 SYS(write, -1, (EAGAIN, ENOSPC), __VA_ARGS__)
#define sys_writev(...)		 SYS(writev, -1, (EIO, ENOBUFS), __VA_ARGS__)

#endif /* PASSTPY_BASE_SYS_H */
