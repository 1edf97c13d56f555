/* SPDX-License-Identifier: GPL-2.0-or-later */
/* offload.c - Checksums and segmentation in software */

#include "link/offload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "base/iov.h"
#include "base/macros.h"
#include "base/wire.h"

void offload_checksum(struct frame_out *f, const struct iovec *payload,
		      unsigned n)
{
	uint32_t start = f->vh.csum_start;
	uint32_t l4_len = f->hdr_len - start;
	uint16_t sum = csum_fold(csum_add(f->hdr + start, l4_len, 0));
	uint16_t check = (uint16_t)~csum_iov(payload, n, sum, l4_len & 1);

	/* Zero would mean "none" for UDP; for TCP both forms are the same */
	if (!check)
		check = 0xffff;
	memcpy(f->hdr + start + f->vh.csum_offset, &check, sizeof(check));
	f->vh.flags = 0;
}

/* ip_set_length() - Header fields of one segment; @index counts segments */
static void ip_set_length(struct frame_out *f, uint32_t len, uint16_t index)
{
	uint8_t *ip = f->hdr + ETH_HLEN_;

	if (ip[0] >> 4 == 4) {
		struct ip4_hdr *ip4 = (struct ip4_hdr *)ip;
		uint32_t ip_len = f->vh.csum_start - ETH_HLEN_;

		ip4->tot_len = htons((uint16_t)(len + ip_len));
		ip4->id = htons((uint16_t)(ntohs(ip4->id) + index));
		ip4->check = 0;
		ip4->check = (uint16_t)~csum_fold(csum_add(ip4, ip_len, 0));
	} else {
		struct ip6_hdr_ *ip6 = (struct ip6_hdr_ *)ip;

		ip6->payload_len = htons((uint16_t)len);
	}
}

/* pseudo_sum() - Sum of the pseudo header of a segment of @len bytes of L4 */
static uint16_t pseudo_sum(const struct frame_out *f, uint32_t len)
{
	const uint8_t *ip = f->hdr + ETH_HLEN_;
	union inany src, dst;
	uint8_t proto;

	if (ip[0] >> 4 == 4) {
		const struct ip4_hdr *ip4 = (const struct ip4_hdr *)ip;

		inany_from_v4(&src, (struct in_addr){ ip4->saddr });
		inany_from_v4(&dst, (struct in_addr){ ip4->daddr });
		proto = ip4->protocol;
	} else {
		const struct ip6_hdr_ *ip6 = (const struct ip6_hdr_ *)ip;

		memcpy(&src, ip6->saddr, sizeof(src));
		memcpy(&dst, ip6->daddr, sizeof(dst));
		proto = ip6->nexthdr;
	}
	return csum_fold(csum_pseudo(&src, &dst, proto, len));
}

/**
 * segment_headers() - Make the headers of one segment from the whole's
 * @off:	Payload bytes before it
 * @len:	Payload bytes of it
 * @last:	It is the last one
 */
static void segment_headers(struct frame_out *f, uint32_t off, uint32_t len,
			    bool last)
{
	uint32_t l4_len = f->hdr_len - f->vh.csum_start + len;
	uint8_t *l4 = f->hdr + f->vh.csum_start;
	uint16_t pseudo;

	ip_set_length(f, l4_len, (uint16_t)(off / f->vh.gso_size));
	if ((f->vh.gso_type & ~VNET_GSO_ECN) == VNET_GSO_UDP_L4) {
		struct udp_hdr *udp = (struct udp_hdr *)l4;

		udp->len = htons((uint16_t)l4_len);
	} else {
		struct tcp_hdr *tcp = (struct tcp_hdr *)l4;

		tcp->seq = htonl(ntohl(tcp->seq) + off);
		if (!last)
			tcp->flags &= (uint8_t) ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
		if (off)
			tcp->flags &= (uint8_t)~TCP_FLAG_CWR;
	}
	pseudo = pseudo_sum(f, l4_len);
	memcpy(l4 + f->vh.csum_offset, &pseudo, sizeof(pseudo));
}

static int emit_segments(const struct frame_out *f, const struct iovec *payload,
			 uint32_t len, offload_emit_fn emit, void *arg)
{
	struct iovec slice[TAP_IOV_MAX];
	unsigned pos = 0;
	size_t off = 0;

	for (uint32_t done = 0; done < len;) {
		uint32_t part = MIN(len - done, (uint32_t)f->vh.gso_size);
		struct frame_out segment = *f;
		unsigned n;
		int err;

		segment_headers(&segment, done, part, done + part == len);
		n = iov_take(slice, payload, &pos, &off, part);
		offload_checksum(&segment, slice, n);
		segment.vh = (struct vnet_hdr){ 0 };
		err = emit(arg, &segment, slice, n);
		if (err) /* what went out cannot be taken back */
			return done ? 0 : err;
		done += part;
	}
	return 0;
}

int offload_emit(const struct frame_out *f, const struct iovec *payload,
		 unsigned n, uint32_t len, offload_emit_fn emit, void *arg)
{
	struct frame_out whole;

	if (!(f->vh.flags & VNET_F_NEEDS_CSUM))
		return emit(arg, f, payload, n);
	if (f->vh.gso_type != VNET_GSO_NONE && f->vh.gso_size &&
	    len > f->vh.gso_size)
		return emit_segments(f, payload, len, emit, arg);

	whole = *f;
	offload_checksum(&whole, payload, n);
	return emit(arg, &whole, payload, n);
}
