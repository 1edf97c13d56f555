/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mutate.h - Good frames spoiled, and virtio-net headers that say anything */
#ifndef PASSTPY_TESTS_MUTATE_H
#define PASSTPY_TESTS_MUTATE_H

#include <string.h>

#include "base/macros.h"
#include "base/wire.h"
#include "test.h"

/* mutate() - Spoil a good frame; returns its new length */
static inline size_t mutate(struct test_random *r, uint8_t *frame, size_t len,
			    size_t size)
{
	static const uint8_t nasty[] = { 0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60 };

	for (uint32_t n = 1 + test_below(r, 4); n; n--) {
		size_t at = test_below(r, (uint32_t)MIN(len, 100U));

		switch (test_below(r, 6)) {
		case 0:
			frame[at] ^= (uint8_t)(1 << test_below(r, 8));
			break;
		case 1:
			frame[at] = nasty[test_below(r, ARRAY_SIZE(nasty))];
			break;
		case 2:
			frame[at] = (uint8_t)test_below(r, 256);
			break;
		case 3:
			len = 1 + test_below(r, (uint32_t)len);
			break;
		case 4:
			memmove(frame + at, frame + at / 2, len - at);
			break;
		default:
			len = MIN(len + test_below(r, 100), size);
			break;
		}
	}
	return len;
}

/* mutate_header() - Say anything about a frame */
static inline void mutate_header(struct test_random *r, struct vnet_hdr *vh)
{
	static const uint8_t types[] = { VNET_GSO_TCPV4, VNET_GSO_TCPV6,
					 VNET_GSO_UDP_L4, VNET_GSO_NONE, 3 };

	vh->flags = (uint8_t)test_below(r, 4);
	vh->gso_type = types[test_below(r, ARRAY_SIZE(types))];
	if (!test_below(r, 8))
		vh->gso_type |= VNET_GSO_ECN;
	vh->gso_size = (uint16_t)(!test_below(r, 3) ? test_below(r, 65536) :
						      test_below(r, 1500));
	vh->hdr_len = (uint16_t)test_below(r, 200);
	vh->csum_start =
		(uint16_t)(!test_below(r, 2) ? 34 : test_below(r, 3000));
	vh->csum_offset =
		(uint16_t)(!test_below(r, 2) ? 16 : test_below(r, 3000));
}

#endif /* PASSTPY_TESTS_MUTATE_H */
