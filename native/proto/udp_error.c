/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_error.c - ICMP errors that UDP sockets keep, for the guests they concern */

#include "proto/udp_error.h"

#include <arpa/inet.h>
#include <errno.h>

#include "proto/dgram.h"
#include "proto/icmp_error.h"
#include "proto/udp_cross.h"
#include "proto/udp_flow.h"

/* Errors taken from a queue in one event, so that none can starve the rest */
#define UDP_ERRORS_MAX 16

static void error_count(struct ctx *c, const struct flow *flow, int err)
{
	count(&c->cnt, CNT_UDP_ERRORS);
	flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
}

/* refused_by() - Does an error of a socket say that nobody has the target's port? */
static void refused_by(struct ctx *c, struct flow *flow, int fd, int err)
{
	if (err == ECONNREFUSED && fd == flow->f.fd[TGTSIDE])
		udp_refused(c, flow);
}

/* error_relay() - One error, with the UDP header the guest had sent */
static void error_relay(struct ctx *c, struct flow *flow,
			const struct sock_error *e, uint8_t *l4)
{
	const struct flowside *guest = &flow->f.side[udp_tapside(flow)];
	/* The sum of the guest's datagram is not known any more */
	struct udp_hdr uh = {
		.source = htons(guest->eport),
		.dest = htons(guest->oport),
		.len = htons((uint16_t)(UDP_HLEN + e->len)),
	};

	error_count(c, flow, e->err);
	if (flow->f.pif[udp_tapside(flow)] != PIF_TAP)
		return;
	memcpy(l4, &uh, UDP_HLEN);
	icmp_error_relay(c, flow, e, l4, UDP_HLEN + e->len);
}

/**
 * errors_take() - Empty an error queue
 * @flow:	Whose they are; NULL: that is to be found out by the port
 * @p:		Port that the socket is of, or NULL
 */
static void errors_take(struct ctx *c, int fd, struct flow *flow,
			const struct udp_port *p)
{
	uint8_t l4[ICMP_QUOTE_MAX];
	struct sock_error e;
	unsigned n;
	int err;

	for (n = 0; n < UDP_ERRORS_MAX; n++) {
		if (icmp_error_next(fd, l4 + UDP_HLEN, sizeof(l4) - UDP_HLEN,
				    &e))
			break;
		budget_spend(&c->budget, 2 * WORK_CALL);
		if (p)
			flow = udp_port_flow(c, p, &e.to, e.to_port);
		if (!flow) /* it has ended since */
			continue;
		error_relay(c, flow, &e, l4);
		refused_by(c, flow, fd, e.err);
	}
	if (n)
		return;
	/* An error that found no room in the queue would wake us for ever; one
	 * of a socket of the namespace has no queue */
	err = dgram_take_error(fd);
	if (!err)
		return;
	error_count(c, flow, err);
	if (flow)
		refused_by(c, flow, fd, err);
}

void udp_errors(struct ctx *c, struct flow *flow, unsigned sidei)
{
	const struct udp_port *p = udp_port_of(c, flow);

	if (p)
		udp_port_errors(c, p);
	else
		errors_take(c, flow->f.fd[sidei], flow, NULL);
}

void udp_port_errors(struct ctx *c, const struct udp_port *p)
{
	errors_take(c, p->fd, NULL, p);
}
