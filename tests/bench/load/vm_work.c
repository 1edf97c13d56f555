// SPDX-License-Identifier: GPL-2.0-or-later
/* What the played guest's programs do: the modes of the load generator again,
 * with the same options and the same answers.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm.h"

#define OPEN_NS	     (12 * NS_PER_S)
#define DRAIN_NS     (20 * NS_PER_S)
#define GRACE_NS     (500 * NS_PER_MS)
#define UDP_GRACE_NS (300 * NS_PER_MS)
#define GREET_NS     (200 * NS_PER_MS)
#define GREETINGS    25
#define SILENCE_NS   NS_PER_S
#define RR_WARMUP    200 /* exchanges not counted */
#define ENDLESS	     (UINT64_MAX / 2)
#define FIRST_PORT   20000
#define PORTS	     40000
#define UDP_PORT     5000

static void nothing(struct vm_guest *g, struct vm_flow *f)
{
	(void)g;
	(void)f;
}

static void no_data(struct vm_guest *g, struct vm_flow *f, uint32_t len)
{
	(void)g;
	(void)f;
	(void)len;
}

/* one_port() - A port that the last guest at this translator did not have */
static uint16_t one_port(void)
{
	return (uint16_t)(FIRST_PORT + now_ns() / 1000 % PORTS);
}

/* Streams */

static const struct vm_work stream_work = {
	.opened = nothing,
	.data = no_data,
	.closed = nothing,
};

static unsigned int count_in(const struct vm_guest *g, enum vm_state state)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < g->o->streams; i++)
		n += g->flows[i].state == state;
	return n;
}

static int open_streams(struct vm_guest *g)
{
	uint16_t port = one_port();
	uint64_t limit;

	for (unsigned int i = 0; i < g->o->streams; i++) {
		struct vm_flow *f = vm_open(g, (uint16_t)(port + i));

		f->meter = g->o->send ? NULL : calloc(1, sizeof(*f->meter));
		if (!g->o->send && !f->meter)
			return -1;
	}
	limit = now_ns() + OPEN_NS;
	while (count_in(g, VM_OPENING)) {
		if (g->now > limit) {
			errno = ETIMEDOUT;
			return -1;
		}
		if (!vm_step(g))
			return -1;
	}
	return 0;
}

/* end_streams() - The time is over: half-close what we send, or be done */
static void end_streams(struct vm_guest *g)
{
	for (unsigned int i = 0; i < g->o->streams; i++) {
		struct vm_flow *f = &g->flows[i];

		if (!f->close)
			f->end = g->o->send ? f->max : 0;
		if (g->o->send || f->peer_closed)
			f->close = true;
	}
}

static int move_bytes(struct vm_guest *g)
{
	uint64_t limit = g->end;

	if (g->o->verify)
		limit += DRAIN_NS;
	else if (g->o->send)
		limit += GRACE_NS;
	for (unsigned int i = 0; i < g->o->streams && g->o->send; i++)
		g->flows[i].end = ENDLESS;

	while (g->now < limit &&
	       count_in(g, VM_OPEN) + count_in(g, VM_OPENING)) {
		if (g->o->verify && (g->now >= g->end || !g->o->send))
			end_streams(g);
		if (!vm_step(g))
			return -1;
	}
	return 0;
}

static void report_sender(const struct vm_guest *g)
{
	unsigned long long bytes = 0, retransmits = 0;

	for (unsigned int i = 0; i < g->o->streams; i++) {
		const struct vm_flow *f = &g->flows[i];

		bytes += f->close ? f->end : f->una;
		retransmits += f->retransmits;
	}
	printf("{\"bytes\": %llu, \"retransmits\": %llu}\n", bytes,
	       retransmits);
}

static void report_receiver(const struct vm_guest *g)
{
	struct meter *meters[MAX_STREAMS];
	bool exact = true;
	char extra[80];

	for (unsigned int i = 0; i < g->o->streams; i++) {
		const struct vm_flow *f = &g->flows[i];

		meters[i] = f->meter;
		exact = exact && f->exact && f->peer_closed;
	}
	snprintf(extra, sizeof(extra), ", \"bad\": %llu, \"disordered\": %llu",
		 (unsigned long long)g->bad, (unsigned long long)g->disordered);
	report_received(g->o, meters, g->o->streams, exact, extra);
}

/**
 * vm_run_stream() - Send or receive TCP streams for a while
 * @o:		Options: vm, guest, gateway, mtu; side, streams, seconds,
 *		warmup, verify
 *
 * Return: exit status
 */
int vm_run_stream(const struct options *o)
{
	static struct vm_guest g = { .work = &stream_work };

	if (vm_attach(&g, o) || open_streams(&g))
		return fail("connect");
	g.start = g.now = now_ns();
	g.end = g.start + o->warmup_ns + o->seconds_ns;
	if (move_bytes(&g))
		return fail("translator");
	vm_leave(&g);
	if (o->send)
		report_sender(&g);
	else
		report_receiver(&g);
	return 0;
}

/* Exchanges */

static struct {
	struct samples samples;
	size_t turn, errors;
	uint64_t last;
	uint16_t port;
} exchange;

static void rr_opened(struct vm_guest *g, struct vm_flow *f)
{
	(void)g;
	f->begun = now_ns();
	f->end = 1;
}

static void rr_data(struct vm_guest *g, struct vm_flow *f, uint32_t len)
{
	uint64_t after = now_ns();

	(void)len;
	if (exchange.turn++ == RR_WARMUP) {
		g->start = f->begun;
		g->end = f->begun + g->o->seconds_ns;
	}
	if (exchange.turn > RR_WARMUP)
		samples_add(&exchange.samples, after - f->begun);
	exchange.last = after;
	f->begun = now_ns();
	f->end++;
}

static const struct vm_work rr_work = {
	.opened = rr_opened,
	.data = rr_data,
	.closed = nothing,
};

/**
 * vm_run_rr() - One byte there, one byte back, as often as possible
 * @o:		Options: vm, guest, gateway, mtu; seconds
 *
 * Return: exit status
 */
int vm_run_rr(const struct options *o)
{
	static struct vm_guest g = { .work = &rr_work, .end = UINT64_MAX };
	uint64_t limit = now_ns() + OPEN_NS + o->seconds_ns;
	struct vm_flow *f;

	if (!samples_init(&exchange.samples) || vm_attach(&g, o))
		return fail("connect");
	f = vm_open(&g, one_port());
	while (exchange.last < g.end) {
		if (!vm_step(&g))
			return fail("translator");
		if (f->state == VM_RESET || g.now > limit) {
			errno = g.now > limit ? ETIMEDOUT : ECONNRESET;
			return fail("exchange");
		}
	}
	vm_leave(&g);
	report_exchanges(&exchange.samples,
			 (double)(exchange.last - g.start) / (double)NS_PER_S,
			 "");
	return 0;
}

static void crr_next(struct vm_guest *g)
{
	struct vm_flow *f;

	do {
		exchange.port = (uint16_t)(exchange.port + 1);
		if (exchange.port < FIRST_PORT)
			exchange.port = FIRST_PORT;
	} while (g->by_port[exchange.port]);
	f = vm_open(g, exchange.port);
	if (f)
		f->begun = now_ns();
	else
		exchange.errors++;
}

static void crr_opened(struct vm_guest *g, struct vm_flow *f)
{
	(void)g;
	f->end = 1;
}

static void crr_closed(struct vm_guest *g, struct vm_flow *f)
{
	uint64_t after = now_ns();

	f->close = true;
	if (f->state == VM_RESET)
		f->state = VM_CLOSED;
	if (f->received == 1) {
		samples_add(&exchange.samples, after - f->begun);
		exchange.last = after;
	} else {
		exchange.errors++;
	}
	if (after < g->end)
		crr_next(g);
}

static const struct vm_work crr_work = {
	.opened = crr_opened,
	.data = no_data,
	.closed = crr_closed,
};

/**
 * vm_run_crr() - Connect, send a byte, get a byte, see the server close; repeat
 * @o:		Options: vm, guest, gateway, mtu; seconds, clients
 *
 * Return: exit status
 */
int vm_run_crr(const struct options *o)
{
	static struct vm_guest g = { .work = &crr_work };
	char extra[40];

	exchange.port = one_port();
	if (!samples_init(&exchange.samples) || vm_attach(&g, o))
		return fail("connect");
	g.start = now_ns();
	g.end = g.start + o->seconds_ns;
	for (unsigned int k = 0; k < o->clients; k++)
		crr_next(&g);
	while (g.now < g.end) {
		if (!vm_step(&g))
			return fail("translator");
	}
	vm_leave(&g);
	if (!exchange.samples.count) {
		errno = ETIMEDOUT;
		return fail("no exchange succeeded");
	}
	snprintf(extra, sizeof(extra), ", \"errors\": %zu", exchange.errors);
	report_exchanges(&exchange.samples,
			 (double)(exchange.last - g.start) / (double)NS_PER_S,
			 extra);
	return 0;
}

/* Datagrams */

static struct {
	uint64_t total, counted, bytes, first, last, heard;
} datagrams;

static void udp_send(struct vm_guest *g)
{
	bool counted = g->now >= datagrams.first && g->now < datagrams.last;

	while (vm_send_datagram(g, UDP_PORT, (uint32_t)g->o->size)) {
		datagrams.total++;
		datagrams.counted += counted;
	}
}

static void udp_receive(struct vm_guest *g, uint32_t len)
{
	datagrams.total++;
	datagrams.heard = g->now;
	if (!datagrams.first || g->now < datagrams.first)
		return;
	datagrams.counted++;
	datagrams.bytes += len;
}

static const struct vm_work quiet_work = {
	.opened = nothing,
	.data = no_data,
	.closed = nothing,
	.datagram = udp_receive,
};

static const struct vm_work send_work = {
	.opened = nothing,
	.data = no_data,
	.closed = nothing,
	.output = udp_send,
};

static int greet(struct vm_guest *g)
{
	uint64_t again = 0;
	int tries = 0;

	while (!datagrams.total) {
		if (g->now >= again) {
			if (tries++ == GREETINGS) {
				errno = ETIMEDOUT;
				return -1;
			}
			vm_send_datagram(g, UDP_PORT, 1);
			again = g->now + GREET_NS;
		}
		if (!vm_step(g))
			return -1;
	}
	return 0;
}

static void report_datagrams(const struct options *o)
{
	double seconds = (double)o->seconds_ns / (double)NS_PER_S;
	unsigned long long total = datagrams.total;

	if (o->send)
		printf("{\"sent\": %llu, \"refused\": 0, "
		       "\"per_second\": %.1f}\n",
		       total, (double)datagrams.counted / seconds);
	else
		printf("{\"received\": %llu, \"bytes\": %llu, "
		       "\"per_second\": %.1f, \"gbit\": %.6f}\n",
		       total, total * (unsigned long long)o->size,
		       (double)datagrams.counted / seconds,
		       (double)datagrams.bytes * 8 / seconds / 1e9);
}

/**
 * vm_run_udp() - Send or count datagrams for a while
 * @o:		Options: vm, guest, gateway, mtu; side, size, seconds, warmup
 *
 * Return: exit status
 */
int vm_run_udp(const struct options *o)
{
	static struct vm_guest g = { .work = &quiet_work };
	uint64_t end;

	if (vm_attach(&g, o) || (!o->send && greet(&g)))
		return fail("first datagram");
	g.now = now_ns();
	datagrams.heard = g.now;
	datagrams.first = g.now + o->warmup_ns;
	datagrams.last = datagrams.first + o->seconds_ns;
	end = datagrams.last + (o->send ? UDP_GRACE_NS : 0);
	if (o->send)
		g.work = &send_work;
	while (g.now < end &&
	       (o->send || g.now - datagrams.heard < SILENCE_NS)) {
		if (!vm_step(&g))
			return fail("translator");
	}
	report_datagrams(o);
	return 0;
}
