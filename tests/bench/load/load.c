// SPDX-License-Identifier: GPL-2.0-or-later
/* The load generator's entry: options, and helpers that its modes share.
 *
 * load MODE ADDRESS PORT [role=listen] [side=send] [name=value ...]
 *
 * With vm=SOCKET guest=ADDRESS gateway=ADDRESS the opening end is no program on
 * kernel sockets but a guest behind a translator's socket (vm.h).
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

/* A peer that neither answers nor refuses must not hold a benchmark up */
#define CONNECT_TIMEOUT_S 10

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/**
 * fail() - Report why a mode cannot go on
 * @what:	The step that failed; errno tells the reason
 *
 * Return: 1, the exit status
 */
int fail(const char *what)
{
	printf("{\"error\": \"%s: %s\"}\n", what, strerror(errno));
	return 1;
}

int set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags);
}

void set_nodelay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/**
 * tcp_listener() - Open a listening socket on the address of the command line
 * @o:		Options
 * @backlog:	Connections that may wait to be accepted
 *
 * Return: file descriptor, or -1 with errno set
 */
int tcp_listener(const struct options *o, int backlog)
{
	int one = 1, fd;

	fd = socket(o->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&o->addr, o->addr_len) ||
	    listen(fd, backlog)) {
		close(fd);
		return -1;
	}
	return fd;
}

/**
 * tcp_connected() - Open a blocking connection to the given address
 * @o:		Options
 *
 * Return: file descriptor, or -1 with errno set
 */
int tcp_connected(const struct options *o)
{
	struct timeval limit = { .tv_sec = CONNECT_TIMEOUT_S };
	int fd;

	fd = socket(o->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (o->congestion &&
	    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, o->congestion,
		       (socklen_t)strlen(o->congestion)))
		goto fail;
	if (connect(fd, (const struct sockaddr *)&o->addr, o->addr_len))
		goto fail;
	return fd;

fail:
	close(fd);
	return -1;
}

static bool parse_address(struct options *o, const char *host, const char *port)
{
	struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)&o->addr;
	struct sockaddr_in *a4 = (struct sockaddr_in *)&o->addr;

	if (inet_pton(AF_INET, host, &a4->sin_addr) == 1) {
		a4->sin_family = AF_INET;
		a4->sin_port = htons((uint16_t)atoi(port));
		o->addr_len = sizeof(*a4);
		return true;
	}
	if (inet_pton(AF_INET6, host, &a6->sin6_addr) == 1) {
		a6->sin6_family = AF_INET6;
		a6->sin6_port = htons((uint16_t)atoi(port));
		o->addr_len = sizeof(*a6);
		return true;
	}
	return false;
}

static unsigned int bounded(const char *value, unsigned int max)
{
	unsigned long n = strtoul(value, NULL, 10);

	return n < 1 ? 1 : n > max ? max : (unsigned int)n;
}

static bool parse_option(struct options *o, const char *word)
{
	const char *value = strchr(word, '=');
	size_t len;

	if (!value)
		return false;
	len = (size_t)(value++ - word);

#define IS(name) (len == sizeof(name) - 1 && !memcmp(word, name, len))
	if (IS("role"))
		o->listen = !strcmp(value, "listen");
	else if (IS("side"))
		o->send = !strcmp(value, "send");
	else if (IS("close"))
		o->close_first = *value == '1';
	else if (IS("verify"))
		o->verify = *value == '1';
	else if (IS("cc"))
		o->congestion = value;
	else if (IS("seconds"))
		o->seconds_ns = (uint64_t)(atof(value) * (double)NS_PER_S);
	else if (IS("warmup"))
		o->warmup_ns = (uint64_t)(atof(value) * (double)NS_PER_S);
	else if (IS("streams"))
		o->streams = bounded(value, MAX_STREAMS);
	else if (IS("clients"))
		o->clients = bounded(value, MAX_CLIENTS);
	else if (IS("flows"))
		o->flows = bounded(value, 60000);
	else if (IS("rate"))
		o->rate = strtoull(value, NULL, 10);
	else if (IS("size"))
		o->size = bounded(value, 65000);
	else if (IS("kind"))
		o->kind = value;
	else if (IS("dev"))
		o->dev = value;
	else if (IS("vm"))
		o->vm = value;
	else if (IS("vhost"))
		o->vhost = *value == '1';
	else if (IS("guest"))
		o->guest = ntohl(inet_addr(value));
	else if (IS("gateway"))
		o->gateway = ntohl(inet_addr(value));
	else if (IS("mtu"))
		o->mtu = bounded(value, 65520);
	else if (IS("queue"))
		o->queue = bounded(value, 1024);
	else if (IS("features"))
		o->features = strtoull(value, NULL, 16);
	else
		return false;
#undef IS
	return true;
}

static const struct {
	const char *name;
	int (*run)(const struct options *o);
	int (*run_vm)(const struct options *o);
} modes[] = {
	{ "stream", run_stream, vm_run_stream },
	{ "server", run_server, NULL },
	{ "rr", run_rr, vm_run_rr },
	{ "crr", run_crr, vm_run_crr },
	{ "hold", run_hold, NULL },
	{ "udp", run_udp, vm_run_udp },
	{ "flood", run_flood, NULL },
};

static int run_mode(const char *name, const struct options *o)
{
	size_t m;

	for (m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		if (strcmp(name, modes[m].name))
			continue;
		if (!o->vm)
			return modes[m].run(o);
		if (modes[m].run_vm)
			return modes[m].run_vm(o);
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct options o = {
		.seconds_ns = 2 * NS_PER_S,
		.streams = 1,
		.clients = 1,
		.flows = 1,
		.size = 1472,
		.mtu = 1500,
		.queue = 256,
		.features = UINT64_MAX,
	};
	struct rlimit files;
	int i, status;

	if (argc < 4 || !parse_address(&o, argv[2], argv[3]))
		goto usage;
	for (i = 4; i < argc; i++) {
		if (!parse_option(&o, argv[i]))
			goto usage;
	}

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);

	status = run_mode(argv[1], &o);
	if (status >= 0)
		return status;

usage:
	fprintf(stderr, "usage: load stream|server|rr|crr|hold|udp|flood "
			"ADDRESS PORT [name=value ...]\n");
	return 2;
}
