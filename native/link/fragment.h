/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fragment.h - Packets for the guest that are longer than its MTU */
#ifndef PASSTPY_LINK_FRAGMENT_H
#define PASSTPY_LINK_FRAGMENT_H

#include "link/tap.h"

/* fragment_is_needed() - Is a packet longer than an MTU allows?
 * @len:	Bytes of its payload */
static inline bool fragment_is_needed(const struct frame_out *f, uint32_t len,
				      uint32_t mtu)
{
	return f->vh.gso_type == VNET_GSO_NONE &&
	       f->hdr_len + len > mtu + ETH_HLEN_;
}

/** fragment_emit_fn - Takes one fragment; 0, or -errno to end it all */
typedef int fragment_emit_fn(void *arg, struct frame_out *f,
			     const struct iovec *payload, unsigned n,
			     uint32_t len);

/**
 * fragment_emit() - Cut one packet into IP fragments
 * @f:		Headers, made by frame_ip(); no super-segment
 * @payload:	Payload
 * @n:		Entries of @payload
 * @len:	Bytes of payload
 * @mtu:	Bytes of IP packet that a fragment may have
 * @id:		Identification
 * @emit:	Gets each fragment; its payload refers to @payload's
 * @arg:	For @emit
 *
 * The L4 checksum is completed first: nobody can do it afterwards.
 *
 * Return: 0; -EMSGSIZE @mtu is too small for the headers; or what @emit said:
 * the packet is lost then
 */
int fragment_emit(const struct frame_out *f, const struct iovec *payload,
		  unsigned n, uint32_t len, uint32_t mtu, uint32_t id,
		  fragment_emit_fn *emit, void *arg);

#endif /* PASSTPY_LINK_FRAGMENT_H */
