/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fragment.c - Packets for the guest that are longer than its MTU
 *
 * A datagram of up to 64 KiB may come out of a socket whatever the guest's MTU
 * is, for the host's kernel has put it together. A namespace's tap would take
 * it whole, a virtual machine's network card would not, nor would a bridge in
 * either: so the guest gets what it would get from a router (RFC 791 section
 * 3.2, RFC 8200 section 4.5), as fragments of the largest size that fits.
 */

#include "link/fragment.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "base/iov.h"
#include "base/macros.h"
#include "link/offload.h"

/** struct fragment6 - IPv6 Fragment header */
struct fragment6 {
	uint8_t nexthdr;
	uint8_t reserved;
	uint16_t off_more; /* offset in bytes, a multiple of 8; 1: more */
	uint32_t id;
} WIRE_PACKED;

/** struct cut - A packet while it is cut up
 * @whole:	Its headers, checksum complete
 * @v4:		IPv4, else IPv6
 * @l4:		Offset of the L4 header, which is the first fragment's payload
 * @id:		Identification
 */
struct cut {
	const struct frame_out *whole;
	bool v4;
	uint32_t l4;
	uint32_t id;
};

static void fragment_ip4(struct frame_out *part, const struct cut *c,
			 uint32_t off, uint32_t len, bool more)
{
	struct ip4_hdr *ih = (struct ip4_hdr *)(part->hdr + ETH_HLEN_);

	ih->tot_len = htons((uint16_t)(sizeof(*ih) + len));
	ih->id = htons((uint16_t)c->id);
	ih->frag_off = htons((uint16_t)(off / 8 | (more ? IP4_MF : 0)));
	ih->check = 0;
	ih->check = (uint16_t)~csum_fold(csum_add(ih, sizeof(*ih), 0));
	part->hdr_len = c->l4;
}

static void fragment_ip6(struct frame_out *part, const struct cut *c,
			 uint32_t off, uint32_t len, bool more)
{
	struct ip6_hdr_ *ih = (struct ip6_hdr_ *)(part->hdr + ETH_HLEN_);
	struct fragment6 fh = {
		.nexthdr = ih->nexthdr,
		.off_more = htons((uint16_t)(off | more)),
		.id = htonl(c->id),
	};

	ih->nexthdr = IPPROTO_FRAGMENT;
	ih->payload_len = htons((uint16_t)(sizeof(fh) + len));
	memcpy(part->hdr + c->l4, &fh, sizeof(fh));
	part->hdr_len = c->l4 + (uint32_t)sizeof(fh);
}

/* fragment_headers() - Headers of a fragment of @len bytes from @off on */
static void fragment_headers(struct frame_out *part, const struct cut *c,
			     uint32_t off, uint32_t len, bool more)
{
	uint32_t l4_len = c->whole->hdr_len - c->l4;

	part->vh = (struct vnet_hdr){ 0 };
	memcpy(part->hdr, c->whole->hdr, c->l4);
	if (c->v4)
		fragment_ip4(part, c, off, len, more);
	else
		fragment_ip6(part, c, off, len, more);
	if (off)
		return;
	memcpy(part->hdr + part->hdr_len, c->whole->hdr + c->l4, l4_len);
	part->hdr_len += l4_len;
}

int fragment_emit(const struct frame_out *f, const struct iovec *payload,
		  unsigned n, uint32_t len, uint32_t mtu, uint32_t id,
		  fragment_emit_fn *emit, void *arg)
{
	bool v4 = f->hdr[ETH_HLEN_] >> 4 == 4;
	struct frame_out whole = *f, part;
	struct cut c = {
		.whole = &whole,
		.v4 = v4,
		.id = id,
		.l4 = ETH_HLEN_ +
		      (v4 ? sizeof(struct ip4_hdr) : sizeof(struct ip6_hdr_)),
	};
	uint32_t hlen = c.l4 - ETH_HLEN_ +
			(v4 ? 0 : (uint32_t)sizeof(struct fragment6));
	uint32_t l4_len = f->hdr_len - c.l4, total = l4_len + len;
	struct iovec slice[TAP_IOV_MAX];
	unsigned pos = 0;
	size_t skip = 0;
	uint32_t room;

	room = mtu > hlen ? ROUND_DOWN(mtu - hlen, 8U) : 0;
	if (room < l4_len ||
	    f->hdr_len + sizeof(struct fragment6) > TAP_HDR_MAX)
		return -EMSGSIZE;
	if (f->vh.flags & VNET_F_NEEDS_CSUM)
		offload_checksum(&whole, payload, n);

	for (uint32_t off = 0, part_len; off < total; off += part_len) {
		uint32_t bytes;
		int err;

		part_len = MIN(room, total - off);
		bytes = part_len - (off ? 0 : l4_len);
		fragment_headers(&part, &c, off, part_len,
				 off + part_len < total);
		err = emit(arg, &part, slice,
			   iov_take(slice, payload, &pos, &skip, bytes), bytes);
		if (err)
			return err;
	}
	return 0;
}
