// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UDP for a guest whose busybox has none:
 *
 *	datagram echo PORT			send back whatever comes, for ever
 *	datagram ask ADDRESS PORT COUNT SIZE	send, wait, compare, COUNT times
 *
 * The exit status of "ask" is 0 if each echo came and was what had been sent.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define MAX_SIZE 65507 /* bytes: what IPv4 has room for */
#define PATIENCE 10    /* s: an emulated machine is slow */

static unsigned char sent[MAX_SIZE], got[MAX_SIZE];

static int echo(int port)
{
	struct sockaddr_in6 here = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(port),
	};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0) {
		perror("bind");
		return 1;
	}
	for (;;) {
		struct sockaddr_in6 peer;
		socklen_t len = sizeof(peer);
		ssize_t n;

		n = recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&peer,
			     &len);
		if (n >= 0)
			sendto(fd, got, n, 0, (struct sockaddr *)&peer, len);
	}
}

static socklen_t parse(const char *address, int port,
		       struct sockaddr_storage *to)
{
	struct sockaddr_in6 *to6 = (struct sockaddr_in6 *)to;
	struct sockaddr_in *to4 = (struct sockaddr_in *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, address, &to4->sin_addr) == 1) {
		to4->sin_family = AF_INET;
		to4->sin_port = htons(port);
		return sizeof(*to4);
	}
	if (inet_pton(AF_INET6, address, &to6->sin6_addr) == 1) {
		to6->sin6_family = AF_INET6;
		to6->sin6_port = htons(port);
		return sizeof(*to6);
	}
	return 0;
}

static int ask(const char *address, int port, int count, size_t size)
{
	struct timeval patience = { .tv_sec = PATIENCE };
	struct sockaddr_storage to;
	socklen_t len;
	int fd, i;

	len = parse(address, port, &to);
	fd = len ? socket(to.ss_family, SOCK_DGRAM, 0) : -1;
	if (size > MAX_SIZE || fd < 0 ||
	    connect(fd, (struct sockaddr *)&to, len) < 0) {
		perror(address);
		return 1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (i = 0; i < count; i++) {
		size_t j;
		ssize_t n;

		for (j = 0; j < size; j++)
			sent[j] = i + j * 7 + (j >> 8);
		if (send(fd, sent, size, 0) < 0) {
			perror("send");
			return 1;
		}
		n = recv(fd, got, sizeof(got), 0);
		if (n != (ssize_t)size || memcmp(sent, got, size)) {
			fprintf(stderr, "datagram %d: %zd bytes\n", i, n);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "echo"))
		return echo(atoi(argv[2]));
	if (argc == 6 && !strcmp(argv[1], "ask"))
		return ask(argv[2], atoi(argv[3]), atoi(argv[4]),
			   strtoul(argv[5], NULL, 0));
	fprintf(stderr, "usage: datagram echo PORT | "
			"ask ADDRESS PORT COUNT SIZE\n");
	return 2;
}
