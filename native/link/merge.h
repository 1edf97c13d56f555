/* SPDX-License-Identifier: GPL-2.0-or-later */
/* merge.h - Super-segments out of the guest's single ones
 *
 * A guest without offload cuts its stream into segments of its MTU, which come
 * in a row. What the kernel's GRO does for a host is done here for handlers:
 * consecutive segments of one connection become one frame with a virtio-net
 * header that says so. The rules are GRO's: same addresses, ports, flags,
 * acknowledgement, window and options, equal sizes, the next sequence number.
 */
#ifndef PASSTPY_LINK_MERGE_H
#define PASSTPY_LINK_MERGE_H

#include "link/tap.h"

/**
 * merge_batch() - Merge what can be merged in a batch
 * @rx:		Frames in order of arrival; merged in place: payload is moved
 *		down to the end of the frame that it continues
 * @n:		Their number
 *
 * Each TCP frame that may take part has its checksums verified, and is marked
 * VNET_F_DATA_VALID if they are right; one that is wrong is left alone, to be
 * dropped and counted by flow_extract().
 *
 * Return: number of frames left
 */
unsigned merge_batch(struct tap_rx *rx, unsigned n);

#endif /* PASSTPY_LINK_MERGE_H */
