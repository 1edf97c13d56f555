// SPDX-License-Identifier: GPL-2.0-or-later
/* UDP: one side sends datagrams as fast as send() takes them, the other counts.
 *
 * The guest always opens the exchange: as receiver it first sends a greeting,
 * which tells the sender on the remote side where to send. The receiver reads in
 * batches, so that it is not the bottleneck; the sender does not, because an
 * ordinary application sends one datagram per call.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define MAX_DATAGRAM	65536
#define BATCH		64
#define BUFFER_BYTES	(8 << 20)
#define FIRST_MS	5000 /* wait for the first datagram */
#define GREET_MS	200  /* repeat the greeting: it may be lost */
#define SENDER_GRACE_NS (300 * NS_PER_MS)
#define SILENCE_MS	1000 /* then the exchange is over */

static int udp_socket(const struct options *o)
{
	const struct sockaddr *sa = (const struct sockaddr *)&o->addr;
	int size = BUFFER_BYTES, on = 1, fd;

	fd = socket(o->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* Only root may go beyond net.core.rmem_max */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (o->rate)
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
	if (o->listen ? bind(fd, sa, o->addr_len) :
			connect(fd, sa, o->addr_len)) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool wait_readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

/* The remote sender learns from the greeting where the guest is */
static int meet_guest(int fd)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	char byte;

	if (!wait_readable(fd, FIRST_MS)) {
		errno = ETIMEDOUT;
		return -1;
	}
	if (recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len) < 0)
		return -1;
	return connect(fd, (const struct sockaddr *)&from, len);
}

static int send_datagrams(const struct options *o, int fd)
{
	unsigned long long total = 0, counted = 0, refused = 0;
	uint64_t first, last, end, now;
	static char data[MAX_DATAGRAM];

	if (o->listen && meet_guest(fd))
		return fail("greeting");

	first = now_ns() + o->warmup_ns;
	last = first + o->seconds_ns;
	/* Longer than anybody counts: the receiver must not see the end */
	end = last + SENDER_GRACE_NS;
	while ((now = now_ns()) < end) {
		if (send(fd, data, o->size, 0) < 0) {
			refused++;
			continue;
		}
		total++;
		counted += now >= first && now < last;
	}
	printf("{\"sent\": %llu, \"refused\": %llu, \"per_second\": %.1f}\n",
	       total, refused,
	       (double)counted * (double)NS_PER_S / (double)o->seconds_ns);
	return 0;
}

static bool first_arrives(const struct options *o, int fd)
{
	int waited;

	for (waited = 0; waited < FIRST_MS; waited += GREET_MS) {
		if (!o->listen && send(fd, "?", 1, 0) < 0 &&
		    errno != ECONNREFUSED)
			return false;
		if (wait_readable(fd, GREET_MS))
			return true;
	}
	errno = ETIMEDOUT;
	return false;
}

/* arrived_ns() - When the kernel had it: we may read it much later */
static uint64_t arrived_ns(struct msghdr *mh)
{
	struct cmsghdr *cm = CMSG_FIRSTHDR(mh);
	struct timespec at = { 0 };

	if (cm && cm->cmsg_level == SOL_SOCKET &&
	    cm->cmsg_type == SO_TIMESTAMPNS)
		memcpy(&at, CMSG_DATA(cm), sizeof(at));
	return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
}

/* receive_batch() - Count how far datagrams are ahead of the rate; returns how many
 * there were */
static int receive_batch(int fd, struct mmsghdr *messages, struct meter *meter)
{
	static uint8_t control[BATCH][CMSG_SPACE(sizeof(struct timespec))];
	static uint64_t first;
	int n;

	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_control = control[i];
		messages[i].msg_hdr.msg_controllen = sizeof(control[i]);
	}
	n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		uint64_t at = arrived_ns(&messages[i].msg_hdr);

		if (!first)
			first = at;
		meter_count(meter, at - first, messages[i].msg_len);
	}
	return n;
}

static int receive_datagrams(const struct options *o, int fd)
{
	unsigned long long count = 0, bytes = 0, total = 0;
	struct meter meter = { .rate = o->rate };
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec iov[BATCH];
	uint64_t first, end, now;
	int n, i;

	for (i = 0; i < BATCH; i++) {
		iov[i].iov_base = malloc(MAX_DATAGRAM);
		iov[i].iov_len = MAX_DATAGRAM;
		if (!iov[i].iov_base)
			return fail("setup");
		messages[i].msg_hdr.msg_iov = &iov[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	if (!first_arrives(o, fd))
		return fail("first datagram");

	first = now_ns() + o->warmup_ns;
	end = first + o->seconds_ns;
	while ((now = now_ns()) < end && wait_readable(fd, SILENCE_MS)) {
		n = receive_batch(fd, messages, &meter);
		for (i = 0; i < n; i++) {
			total++;
			if (now < first)
				continue;
			count++;
			bytes += messages[i].msg_len;
		}
	}
	printf("{\"received\": %llu, \"bytes\": %llu, \"per_second\": %.1f, "
	       "\"gbit\": %.6f, \"burst_ms\": %.1f}\n",
	       total, total * o->size,
	       (double)count * (double)NS_PER_S / (double)o->seconds_ns,
	       (double)bytes * 8 / (double)o->seconds_ns,
	       meter_burst_ms(&meter));
	return 0;
}

/**
 * run_udp() - Send or count datagrams for a while
 * @o:		Options: role, side, size, seconds, warmup
 *
 * Return: exit status
 */
int run_udp(const struct options *o)
{
	int fd = udp_socket(o);

	if (fd < 0)
		return fail("socket");
	return o->send ? send_datagrams(o, fd) : receive_datagrams(o, fd);
}
