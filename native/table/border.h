/* SPDX-License-Identifier: GPL-2.0-or-later */
/* border.h - Records that cross to Python, declared once
 *
 * A miss crosses as its key (struct miss), a log event as struct log_record,
 * a flow as struct flow_common; a punted frame as its bytes, kept here until
 * py/ has copied them.
 */
#ifndef PASSTPY_TABLE_BORDER_H
#define PASSTPY_TABLE_BORDER_H

#include <stdint.h>

#define BORDER_PUNTS	64 /* frames lifted to services per turn */
#define BORDER_PUNT_BUF (128 * 1024)

/** struct border_punts - Frames for services, of one turn
 * @count:	Frames
 * @fill:	Bytes used in @buf
 * @off:	Where each frame starts in @buf
 * @len:	Bytes of each frame
 * @buf:	BORDER_PUNT_BUF bytes
 */
struct border_punts {
	uint32_t count;
	uint32_t fill;
	uint32_t off[BORDER_PUNTS];
	uint32_t len[BORDER_PUNTS];
	uint8_t *buf;
};

#endif /* PASSTPY_TABLE_BORDER_H */
