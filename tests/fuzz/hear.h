/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hear.h - What a guest makes of the frames that it gets */
#ifndef PASSTPY_TESTS_HEAR_H
#define PASSTPY_TESTS_HEAR_H

#include "world.h"

static uint8_t frame[GUEST_FRAME]; /* the one at hand, said or heard */

/** struct heard - A TCP segment for the guest
 * @v6:		IPv6, else IPv4
 * @tcp:	Its header, in @frame
 * @len:	Sequence numbers it takes: payload, SYN and FIN
 */
struct heard {
	bool v6;
	struct tcp_hdr tcp;
	uint32_t len;
};

/* see() - Remember a datagram that could be answered */
static inline void see(bool v6)
{
	uint32_t l3 = v6 ? 40 : 20;
	struct udp_hdr udp;

	if (frame[ETH_HLEN_ + (v6 ? 6 : 9)] != IPPROTO_UDP)
		return;
	memcpy(&udp, frame + ETH_HLEN_ + l3, sizeof(udp));
	world.seen[below(SEEN)] = (struct guest_ends){
		.v6 = v6,
		.host = frame[ETH_HLEN_ + (v6 ? 23 : 15)],
		.sport = ntohs(udp.dest),
		.dport = ntohs(udp.source),
	};
}

/* hear_one() - Read frames until one is TCP; false when there is none */
static inline bool hear_one(struct heard *h)
{
	struct vnet_hdr vh;
	ssize_t n;

	while ((n = guest_recv(&world.g, &vh, frame, sizeof(frame))) > 0) {
		size_t l4;

		h->v6 = frame[12] == 0x86 && frame[13] == 0xdd;
		if (frame[ETH_HLEN_ + (h->v6 ? 6 : 9)] != IPPROTO_TCP) {
			see(h->v6);
			continue;
		}
		l4 = ETH_HLEN_ + (h->v6 ? 40 : 20);
		CHECK((size_t)n >= l4 + sizeof(h->tcp));
		memcpy(&h->tcp, frame + l4, sizeof(h->tcp));
		/* not of the frame, which may be padded */
		h->len = h->v6 ? oracle_be16(frame + ETH_HLEN_ + 4) :
				 oracle_be16(frame + ETH_HLEN_ + 2) - 20U;
		CHECK(h->len >= (uint32_t)(h->tcp.off_res >> 4) * 4);
		h->len -= (uint32_t)(h->tcp.off_res >> 4) * 4;
		h->len += !!(h->tcp.flags & TCP_FLAG_SYN);
		h->len += !!(h->tcp.flags & TCP_FLAG_FIN);
		return true;
	}
	return false;
}

static inline void follow(const struct heard *h)
{
	struct conn *c;

	for (c = world.conn; c < world.conn + CONNS; c++) {
		if (c->ends.v6 != h->v6 || htons(c->ends.sport) != h->tcp.dest)
			continue;
		if (h->tcp.flags & TCP_FLAG_RST && one_in(2))
			conn_restart(c);
		else if (!one_in(4))
			c->ack = ntohl(h->tcp.seq) + h->len;
	}
	if (h->tcp.flags != TCP_FLAG_SYN)
		return;

	/* A SYN for the guest: let a connection become its answer */
	c = &world.conn[below(CONNS)];
	c->ends = (struct guest_ends){
		.v6 = h->v6,
		.host = 9,
		.sport = ntohs(h->tcp.dest),
		.dport = ntohs(h->tcp.source),
	};
	c->ack = ntohl(h->tcp.seq) + 1;
}

/* hear() - Read what the datapath sent; follow the connections */
static inline void hear(void)
{
	struct heard h;

	while (hear_one(&h))
		follow(&h);
}

#endif /* PASSTPY_TESTS_HEAR_H */
