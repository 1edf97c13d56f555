// SPDX-License-Identifier: GPL-2.0-or-later
/* Small exchanges over TCP: request/response, connect/request/close, idle flows.
 *
 * The clients block, one thread each, as a simple application would; the server
 * is one epoll loop which echoes bytes and, with close=1, closes first.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

#define EVENTS	      256
#define RR_WARMUP     200 /* exchanges that are never counted */
#define HOLD_AT_ONCE  128 /* connections being opened */
#define HOLD_LIMIT_NS (40 * NS_PER_S)
#define HOLD_STUCK_NS (4 * NS_PER_S) /* the rest will never open */

/**
 * run_server() - Echo until killed
 * @o:		Options: close=1 closes each connection after its first answer
 *
 * Return: exit status
 */
int run_server(const struct options *o)
{
	struct epoll_event e = { .events = EPOLLIN }, ready[EVENTS];
	int listener = tcp_listener(o, 65535);
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	char buffer[4096];
	int n, i, fd;

	if (listener < 0 || epfd < 0)
		return fail("listen");
	set_nonblocking(listener, true);
	e.data.fd = listener;
	epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);

	while ((n = epoll_wait(epfd, ready, EVENTS, -1)) >= 0 ||
	       errno == EINTR) {
		for (i = 0; i < n; i++) {
			ssize_t len;

			if (ready[i].data.fd == listener) {
				fd = accept4(listener, NULL, NULL,
					     SOCK_NONBLOCK | SOCK_CLOEXEC);
				if (fd < 0)
					continue;
				set_nodelay(fd);
				e.data.fd = fd;
				epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
				continue;
			}

			fd = ready[i].data.fd;
			len = recv(fd, buffer, sizeof(buffer), 0);
			if (len > 0)
				len = send(fd, buffer, (size_t)len, 0);
			else if (len < 0 && errno == EAGAIN)
				continue;
			if (len <= 0 || o->close_first)
				close(fd);
		}
	}
	return fail("epoll_wait");
}

/**
 * run_rr() - One byte there, one byte back, as often as possible
 * @o:		Options: seconds, warmup
 *
 * Return: exit status
 */
int run_rr(const struct options *o)
{
	uint64_t begin = 0, end = UINT64_MAX, before, after = 0, warm;
	struct samples samples;
	int fd = tcp_connected(o);
	char byte = 'x';
	size_t turn;

	if (fd < 0 || !samples_init(&samples))
		return fail("connect");
	set_nodelay(fd);
	warm = now_ns() + o->warmup_ns;

	for (turn = 0; after < end; turn++) {
		before = now_ns();
		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			return fail("exchange");
		after = now_ns();
		if (!begin && (turn < RR_WARMUP || before < warm))
			continue;
		if (!begin) {
			begin = before;
			end = before + o->seconds_ns;
		}
		samples_add(&samples, after - before);
	}
	report_exchanges(&samples, (double)(after - begin) / (double)NS_PER_S,
			 "");
	return 0;
}

struct client {
	pthread_t thread;
	const struct options *o;
	uint64_t end;
	struct samples samples;
	size_t errors;
	int last_error;
};

static bool exchange_once(const struct options *o)
{
	int fd = tcp_connected(o);
	char byte = 'x';
	bool ok;

	if (fd < 0)
		return false;
	set_nodelay(fd);
	ok = send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1 &&
	     recv(fd, &byte, 1, 0) == 0;
	close(fd);
	return ok;
}

static void *crr_client(void *arg)
{
	struct client *c = arg;
	uint64_t before, after;

	while ((before = now_ns()) < c->end) {
		if (!exchange_once(c->o)) {
			c->last_error = errno;
			c->errors++;
			continue;
		}
		after = now_ns();
		samples_add(&c->samples, after - before);
	}
	return NULL;
}

/**
 * run_crr() - Connect, send a byte, get a byte, see the server close; repeat
 * @o:		Options: seconds, clients
 *
 * Return: exit status
 */
int run_crr(const struct options *o)
{
	struct client clients[MAX_CLIENTS] = { 0 };
	uint64_t begin = now_ns();
	struct samples all;
	size_t errors = 0, i;
	char extra[40];
	unsigned int k;
	double took;

	if (!samples_init(&all))
		return fail("setup");
	for (k = 0; k < o->clients; k++) {
		clients[k].o = o;
		clients[k].end = begin + o->seconds_ns;
		if (!samples_init(&clients[k].samples) ||
		    pthread_create(&clients[k].thread, NULL, crr_client,
				   &clients[k]))
			return fail("setup");
	}
	for (k = 0; k < o->clients; k++) {
		pthread_join(clients[k].thread, NULL);
		for (i = 0; i < clients[k].samples.count; i++)
			samples_add(&all, clients[k].samples.ns[i]);
		errors += clients[k].errors;
		if (clients[k].errors)
			errno = clients[k].last_error;
	}
	took = (double)(now_ns() - begin) / (double)NS_PER_S;
	if (!all.count)
		return fail("no exchange succeeded");
	snprintf(extra, sizeof(extra), ", \"errors\": %zu", errors);
	report_exchanges(&all, took, extra);
	return 0;
}

/* One connection of run_hold() that is being opened */
static int hold_connect(const struct options *o, int epfd)
{
	struct epoll_event e = { .events = EPOLLOUT };
	int fd = socket(o->addr.ss_family,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)&o->addr, o->addr_len) &&
	    errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	e.data.fd = fd;
	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
}

/* 1 when the flow has proved itself with an echo, 0 to go on, -1 on failure */
static int hold_step(int epfd, const struct epoll_event *ready)
{
	struct epoll_event e = { .events = EPOLLIN, .data = ready->data };
	char byte = 'x';
	int fd = ready->data.fd;

	if (ready->events & EPOLLIN) {
		if (recv(fd, &byte, 1, 0) != 1)
			return -1;
		epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		return 1;
	}
	if (ready->events & (EPOLLERR | EPOLLHUP))
		return -1;
	if (send(fd, &byte, 1, 0) != 1)
		return -1;
	epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &e);
	return 0;
}

/**
 * run_hold() - Open many connections, exchange a byte on each, then keep them
 * @o:		Options: flows
 *
 * Prints its object when all are open and ends when its standard input does.
 *
 * Return: exit status
 */
int run_hold(const struct options *o)
{
	unsigned int begun = 0, open = 0, failed = 0;
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t start = now_ns(), progress = start, now = start;
	struct epoll_event ready[EVENTS];
	char byte;
	int n, i;

	while (open + failed < o->flows && now - start < HOLD_LIMIT_NS &&
	       now - progress < HOLD_STUCK_NS) {
		while (begun < o->flows &&
		       begun - open - failed < HOLD_AT_ONCE) {
			begun++;
			if (hold_connect(o, epfd))
				failed++;
		}
		n = epoll_wait(epfd, ready, EVENTS, 100);
		now = now_ns();
		for (i = 0; i < n; i++) {
			int step = hold_step(epfd, &ready[i]);

			if (step < 0)
				close(ready[i].data.fd);
			failed += step < 0;
			open += step > 0;
			if (step > 0)
				progress = now;
		}
	}

	printf("{\"open\": %u, \"failed\": %u, \"seconds\": %.3f}\n", open,
	       o->flows - open, (double)(progress - start) / (double)NS_PER_S);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
