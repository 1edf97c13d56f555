/* SPDX-License-Identifier: GPL-2.0-or-later */
/* heard.h - What a guest hears of TCP: the segments that the datapath sends it */
#ifndef PASSTPY_TESTS_HEARD_H
#define PASSTPY_TESTS_HEARD_H

#include "guest.h"

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

/* hear_tcp() - Read frames until one is TCP; false when there is none
 * @frame:	Room for one of @size bytes */
static inline bool hear_tcp(struct guest *g, uint8_t *frame, size_t size,
			    struct heard *h)
{
	struct vnet_hdr vh;
	ssize_t n;

	while ((n = guest_recv(g, &vh, frame, size)) > 0) {
		size_t l4;

		h->v6 = frame[12] == 0x86 && frame[13] == 0xdd;
		if (frame[ETH_HLEN_ + (h->v6 ? 6 : 9)] != IPPROTO_TCP)
			continue;
		l4 = ETH_HLEN_ + (h->v6 ? 40 : 20);
		CHECK((size_t)n >= l4 + sizeof(h->tcp));
		memcpy(&h->tcp, frame + l4, sizeof(h->tcp));
		h->len = (uint32_t)((size_t)n - l4);
		CHECK(h->len >= (uint32_t)(h->tcp.off_res >> 4) * 4);
		h->len -= (uint32_t)(h->tcp.off_res >> 4) * 4;
		h->len += !!(h->tcp.flags & TCP_FLAG_SYN);
		h->len += !!(h->tcp.flags & TCP_FLAG_FIN);
		return true;
	}
	return false;
}

#endif /* PASSTPY_TESTS_HEARD_H */
