/* SPDX-License-Identifier: GPL-2.0-or-later */
/* border.h - Records that cross to Python, declared once
 *
 * A miss crosses as its key (struct miss), a flow as struct border_flow, a log
 * event as struct log_record with one of those; a punted frame as its bytes,
 * kept here until py/ has copied them.
 */
#ifndef PASSTPY_TABLE_BORDER_H
#define PASSTPY_TABLE_BORDER_H

#include <stdint.h>

#include "table/flow_log.h"
#include "table/flow_table.h"

#define BORDER_MISSES	16    /* misses told per turn: half a millisecond */
#define BORDER_SAID	16    /* flows per turn of which it is told */
#define BORDER_SAID_BUF 16384 /* bytes they said, but for the last */
#define BORDER_PUNTS	64    /* frames lifted to services per turn */
#define BORDER_PUNT_BUF (128 * 1024)

/** enum punt_kind - Whom in Python a frame is for; C found out already
 * @PUNT_NONE:	Nobody: it is a flow's
 * @PUNT_ARP:	ARP
 * @PUNT_ND:	Neighbour and router discovery: ICMPv6 types 133 to 137
 * @PUNT_DHCP4:	UDP over IPv4 to port 67
 * @PUNT_DHCP6:	UDP over IPv6 to port 547
 * @PUNT_MEMBERSHIP: IGMP or MLD
 * @PUNT_GROUP:	Another datagram for a group, or for everybody
 * @PUNT_DNS:	UDP to port 53, of whatever server
 */
enum punt_kind {
	PUNT_NONE,
	PUNT_ARP,
	PUNT_ND,
	PUNT_DHCP4,
	PUNT_DHCP6,
	PUNT_MEMBERSHIP,
	PUNT_GROUP,
	PUNT_DNS,
	PUNT_NUM
};

extern const char *const punt_kind_names[];

/** struct border_punts - Frames for services, of one turn
 * @count:	Frames
 * @fill:	Bytes used in @buf
 * @kind:	enum punt_kind of each frame
 * @off:	Where each frame starts in @buf
 * @len:	Bytes of each frame
 * @buf:	BORDER_PUNT_BUF bytes
 */
struct border_punts {
	uint32_t count;
	uint32_t fill;
	uint8_t kind[BORDER_PUNTS];
	uint32_t off[BORDER_PUNTS];
	uint32_t len[BORDER_PUNTS];
	uint8_t *buf;
};

/** struct border_flow - A flow, as many of them lie in a page without gaps */
struct border_flow {
#define FIELD(format, type, name) type name;
#include "table/border_flow.def"
#undef FIELD
} __attribute__((packed));

void border_flow_fill(struct border_flow *r, const struct flow_table *ft,
		      const struct flow *flow);

/* border_flow_from_log() - The flow of a log event: it may be gone by now, so
 * only what the event copied is known, and the rest is zero */
void border_flow_from_log(struct border_flow *r,
			  const struct log_record *event);

/**
 * border_flow_page() - Next flows from a cursor on
 * @cursor:	As for flow_snapshot()
 * @to:		Room for @limit records, at any alignment
 *
 * Return: number of records
 */
unsigned border_flow_page(const struct flow_table *ft, uint32_t *cursor,
			  void *to, unsigned limit);

#endif /* PASSTPY_TABLE_BORDER_H */
