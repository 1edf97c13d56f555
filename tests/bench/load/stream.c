// SPDX-License-Identifier: GPL-2.0-or-later
/* TCP streams: one side sends what it can, the other counts what arrives.
 *
 * The receiver's counters decide, because a sender also counts what still sits
 * in buffers. It counts per stream and per 100 ms, so that a stream which moves
 * nothing for a while is seen even when the average looks well.
 *
 * With verify=1 the bytes follow a fixed pattern which the receiver compares,
 * the sender half-closes at its deadline, and the receiver reads to the end: the
 * byte totals of both sides must then agree.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

#define SEND_BLOCK	(128 * 1024) /* as much per call as iperf3 */
#define RECV_BLOCK	(256 * 1024)
#define CALLS_PER_EVENT 8 /* then the next stream has its turn */
#define ACCEPT_MS	12000
#define DRAIN_NS	(20 * NS_PER_S) /* verify: limit for the remainder */
#define SENDER_GRACE_NS (500 * NS_PER_MS)

struct stream {
	int fd;
	bool done;
	bool exact;
	uint32_t retransmits;
	struct meter meter;
};

struct run {
	const struct options *o;
	int epfd;
	unsigned int count;
	unsigned int open;
	uint64_t start;
	uint64_t end;
	struct stream *streams;
	uint8_t *pattern;
	uint8_t *buffer;
};

static uint32_t retransmits(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	return info.tcpi_total_retrans;
}

static void finish(struct run *r, struct stream *s)
{
	if (s->done)
		return;
	s->retransmits = retransmits(s->fd);
	epoll_ctl(r->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	s->done = true;
	r->open--;
}

static void on_readable(struct run *r, struct stream *s)
{
	ssize_t n = 0;
	int i;

	for (i = 0; i < CALLS_PER_EVENT; i++) {
		n = recv(s->fd, r->buffer, RECV_BLOCK, MSG_DONTWAIT);
		if (n <= 0)
			break;
		if (r->o->verify &&
		    memcmp(r->buffer,
			   r->pattern + s->meter.bytes % PATTERN_PERIOD,
			   (size_t)n))
			s->exact = false;
		meter_count(&s->meter, now_ns() - r->start, (size_t)n);
		if (n < RECV_BLOCK / 4)
			break;
	}
	if (n < 0 && errno != EAGAIN)
		s->exact = false;
	if (n == 0 || (n < 0 && errno != EAGAIN))
		finish(r, s);
}

static void on_writable(struct run *r, struct stream *s)
{
	ssize_t n;
	int i;

	if (r->o->verify && now_ns() >= r->end) {
		shutdown(s->fd, SHUT_WR);
		finish(r, s);
		return;
	}
	for (i = 0; i < CALLS_PER_EVENT; i++) {
		n = send(s->fd, r->pattern + s->meter.bytes % PATTERN_PERIOD,
			 SEND_BLOCK, MSG_DONTWAIT);
		if (n < 0) {
			if (errno != EAGAIN)
				finish(r, s);
			return;
		}
		s->meter.bytes += (uint64_t)n;
	}
}

static int open_streams(struct run *r)
{
	struct pollfd wait;
	int listener;

	if (!r->o->listen) {
		for (; r->count < r->o->streams; r->count++) {
			int fd = tcp_connected(r->o);

			if (fd < 0)
				return fail("connect");
			r->streams[r->count].fd = fd;
		}
		return 0;
	}

	listener = tcp_listener(r->o, MAX_STREAMS);
	if (listener < 0)
		return fail("listen");
	wait = (struct pollfd){ .fd = listener, .events = POLLIN };
	for (; r->count < r->o->streams; r->count++) {
		int fd = -1;

		if (poll(&wait, 1, ACCEPT_MS) == 1)
			fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		else
			errno = ETIMEDOUT;
		if (fd < 0)
			return fail("accept");
		r->streams[r->count].fd = fd;
	}
	close(listener);
	return 0;
}

static void move_bytes(struct run *r)
{
	struct epoll_event ready[MAX_STREAMS];
	uint64_t limit = r->end;
	uint64_t now;
	int n, i;

	if (r->o->verify)
		limit += DRAIN_NS;
	else if (r->o->send)
		limit += SENDER_GRACE_NS;

	while (r->open && (now = now_ns()) < limit) {
		/* A wake-up per bin at least: a sender that cannot write
		 * must notice its deadline too */
		n = epoll_wait(r->epfd, ready, MAX_STREAMS, BIN_MS);
		for (i = 0; i < n; i++) {
			struct stream *s = ready[i].data.ptr;

			if (r->o->send)
				on_writable(r, s);
			else
				on_readable(r, s);
		}
	}
}

static void report_receiver(const struct run *r)
{
	struct meter *meters[MAX_STREAMS];
	bool exact = true;
	unsigned int k;

	for (k = 0; k < r->count; k++) {
		meters[k] = &r->streams[k].meter;
		exact = exact && r->streams[k].exact && r->streams[k].done;
	}
	report_received(r->o, meters, r->count, exact, "");
}

static void report_sender(const struct run *r)
{
	unsigned long long bytes = 0, retransmits = 0;
	unsigned int k;

	for (k = 0; k < r->count; k++) {
		bytes += r->streams[k].meter.bytes;
		retransmits += r->streams[k].retransmits;
	}
	printf("{\"bytes\": %llu, \"retransmits\": %llu}\n", bytes,
	       retransmits);
}

/**
 * wait_for_peer() - Let the receiver finish reading before the sockets close
 * @r:		Run whose sender has half-closed every stream
 */
static void wait_for_peer(struct run *r)
{
	uint64_t limit = now_ns() + DRAIN_NS;
	unsigned int k;
	char byte;

	for (k = 0; k < r->count; k++) {
		struct pollfd p = { .fd = r->streams[k].fd, .events = POLLIN };
		uint64_t now = now_ns();

		if (now < limit)
			poll(&p, 1, (int)((limit - now) / NS_PER_MS));
		(void)!recv(p.fd, &byte, 1, MSG_DONTWAIT);
	}
}

/**
 * run_stream() - Send or receive TCP streams for a while
 * @o:		Options: role, side, streams, seconds, warmup, cc, verify
 *
 * Return: exit status
 */
int run_stream(const struct options *o)
{
	struct run r = { .o = o };
	unsigned int k;

	r.streams = calloc(o->streams, sizeof(*r.streams));
	r.pattern = malloc(PATTERN_SIZE);
	r.buffer = malloc(RECV_BLOCK);
	r.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (!r.streams || !r.pattern || !r.buffer || r.epfd < 0)
		return fail("setup");
	fill_pattern(r.pattern);

	if (open_streams(&r))
		return 1;
	for (k = 0; k < r.count; k++) {
		struct epoll_event e = {
			.events = o->send ? EPOLLOUT : EPOLLIN,
			.data.ptr = &r.streams[k],
		};

		r.streams[k].exact = true;
		r.streams[k].meter.rate = o->rate;
		set_nonblocking(r.streams[k].fd, true);
		epoll_ctl(r.epfd, EPOLL_CTL_ADD, r.streams[k].fd, &e);
	}
	r.open = r.count;
	r.start = now_ns();
	r.end = r.start + o->warmup_ns + o->seconds_ns;
	move_bytes(&r);

	if (!o->send) {
		report_receiver(&r);
		return 0;
	}
	if (o->verify)
		wait_for_peer(&r);
	for (k = 0; k < r.count; k++)
		finish(&r, &r.streams[k]);
	report_sender(&r);
	return 0;
}
