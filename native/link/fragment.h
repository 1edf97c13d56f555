/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fragment.h - Packets for the guest that are longer than its MTU */
#ifndef PASSTPY_LINK_FRAGMENT_H
#define PASSTPY_LINK_FRAGMENT_H

#include "link/tap.h"

/* fragment_is_needed() - Is a frame longer than the tap's MTU allows?
 * @len:	Bytes of its payload */
static inline bool fragment_is_needed(const struct tap *t,
				      const struct frame_out *f, uint32_t len)
{
	return f->vh.gso_type == VNET_GSO_NONE &&
	       f->hdr_len + len > t->mtu + ETH_HLEN_;
}

/**
 * fragment_send() - Send one packet as IP fragments
 * @f:		Headers, made by frame_ip(); no super-segment
 * @payload:	Payload
 * @n:		Entries of @payload
 * @len:	Bytes of payload
 *
 * The L4 checksum is completed first: nobody can do it afterwards.
 *
 * Return: 0, or -errno of tap_send(): the packet is lost then
 */
int fragment_send(struct tap *t, const struct frame_out *f,
		  const struct iovec *payload, unsigned n, uint32_t len);

#endif /* PASSTPY_LINK_FRAGMENT_H */
