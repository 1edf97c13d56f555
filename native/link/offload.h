/* SPDX-License-Identifier: GPL-2.0-or-later */
/* offload.h - Checksums and segmentation in software
 *
 * For backends that cannot leave them to a kernel. The plain version: correct
 * first; payload is referred to, never copied.
 */
#ifndef PASSTPY_LINK_OFFLOAD_H
#define PASSTPY_LINK_OFFLOAD_H

#include "link/tap.h"

/** typedef offload_emit_fn - Takes one finished frame: no offload is left
 * Return: 0 or -errno; the rest of a super-segment is given up then
 */
typedef int (*offload_emit_fn)(void *arg, const struct frame_out *f,
			       const struct iovec *payload, unsigned n);

/**
 * offload_checksum() - Complete the L4 checksum of a frame
 * @f:		Headers; the checksum field holds the pseudo header's sum, as
 *		frame_csum_offload() left it
 * @payload:	Payload
 * @n:		Entries of @payload
 */
void offload_checksum(struct frame_out *f, const struct iovec *payload,
		      unsigned n);

/**
 * offload_emit() - Finish a frame: complete its checksum, cut it up
 * @f:		Headers; f->vh says what is to be done
 * @payload:	Payload
 * @n:		Entries of @payload, TAP_IOV_MAX at most
 * @len:	Bytes of payload
 * @emit:	Called for each frame that results, in order
 *
 * Return: 0, or -errno of @emit
 */
int offload_emit(const struct frame_out *f, const struct iovec *payload,
		 unsigned n, uint32_t len, offload_emit_fn emit, void *arg);

#endif /* PASSTPY_LINK_OFFLOAD_H */
