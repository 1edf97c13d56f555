/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The benchmark's load generator: what its files share.
 *
 * One small program with several modes, because Python is too slow and too
 * noisy to load a fast translator. Every mode ends by itself and prints one
 * JSON object on standard output; failures print {"error": ...} and exit 1.
 */

#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define NS_PER_S  1000000000ULL
#define NS_PER_MS 1000000ULL

#define BIN_MS	    100 /* resolution of the byte counters */
#define BIN_NS	    (BIN_MS * NS_PER_MS)
#define MAX_BINS    1200 /* two minutes */
#define MAX_STREAMS 256
#define MAX_CLIENTS 64

struct options {
	const char *mode;
	struct sockaddr_storage addr;
	socklen_t addr_len;
	bool listen;		/* role=listen; default is to connect */
	bool send;		/* side=send; default is to receive */
	bool close_first;	/* server: close after the first answer */
	bool verify;		/* carry a pattern and check it */
	const char *congestion; /* congestion control of the opening side */
	uint64_t seconds_ns;
	uint64_t warmup_ns;
	unsigned int streams;
	unsigned int clients;
	unsigned int flows;
	size_t size; /* datagram payload */
};

int run_stream(const struct options *o);
int run_server(const struct options *o);
int run_rr(const struct options *o);
int run_crr(const struct options *o);
int run_hold(const struct options *o);
int run_udp(const struct options *o);

uint64_t now_ns(void);
int fail(const char *what);
int tcp_listener(const struct options *o, int backlog);
int tcp_connected(const struct options *o);
int set_nonblocking(int fd, bool on);
void set_nodelay(int fd);
double percentile_us(uint32_t *sorted_ns, size_t count, double fraction);
void sort_ns(uint32_t *values, size_t count);

#endif /* LOAD_H */
