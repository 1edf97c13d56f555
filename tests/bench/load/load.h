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

/* A period that divides no power of two shows shifted or repeated blocks. The
 * buffer is long enough to take a block from any phase. */
#define PATTERN_PERIOD 65521
#define PATTERN_SIZE   (PATTERN_PERIOD + 256 * 1024)

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
	uint64_t rate;	    /* bytes a second that the receiver expects, or 0 */
	size_t size;	    /* datagram payload */
	const char *kind;   /* of a flood */
	const char *dev;    /* interface that its frames go to */
	const char *vm;	    /* socket of a translator: play its guest */
	bool vhost;	    /* that socket speaks vhost-user */
	uint32_t guest;	    /* our address then */
	uint32_t gateway;   /* who leads to the server */
	unsigned int mtu;   /* of the guest */
	unsigned int queue; /* vhost-user: descriptors of a ring */
	uint64_t features;  /* vhost-user: what is accepted at most */
};

int run_stream(const struct options *o);
int run_server(const struct options *o);
int run_rr(const struct options *o);
int run_crr(const struct options *o);
int run_hold(const struct options *o);
int run_udp(const struct options *o);
int run_flood(const struct options *o);
int vm_run_stream(const struct options *o);
int vm_run_rr(const struct options *o);
int vm_run_crr(const struct options *o);
int vm_run_udp(const struct options *o);

/* Bytes of a stream, in total and in steps of BIN_NS; and how far they were
 * ahead of a rate, at any time and at most */
struct meter {
	uint64_t bytes;
	uint64_t bins[MAX_BINS];
	uint64_t rate;
	uint64_t at_ns;
	double ahead;
	double most;
};

void fill_pattern(uint8_t *pattern);
void meter_count(struct meter *m, uint64_t age_ns, size_t n);
double meter_burst_ms(const struct meter *m);
void report_received(const struct options *o, struct meter *const *meters,
		     unsigned int count, bool exact, const char *extra);

struct samples {
	uint32_t *ns;
	size_t count;
};

bool samples_init(struct samples *s);
void samples_add(struct samples *s, uint64_t ns);
void report_exchanges(struct samples *s, double seconds, const char *extra);

uint64_t now_ns(void);
int fail(const char *what);
int tcp_listener(const struct options *o, int backlog);
int tcp_connected(const struct options *o);
int set_nonblocking(int fd, bool on);
void set_nodelay(int fd);

#endif /* LOAD_H */
