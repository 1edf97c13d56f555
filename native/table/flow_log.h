/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_log.h - Ring of log events on their way to Python
 *
 * A record is fixed in size and carries a copy of the flow's addresses, since
 * the flow may be gone when Python formats it. A full ring drops and counts; an
 * event in their place tells how many were dropped.
 */
#ifndef PASSTPY_TABLE_FLOW_LOG_H
#define PASSTPY_TABLE_FLOW_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "table/flow.h"

enum log_event {
#define EVENT(name, level, f0, f1, f2, f3) LOG_##name,
#include "base/events.def"
#undef EVENT
	LOG_NUM
};

#define LOG_ARGS 4

/** struct log_record - One event
 * @time:	ns
 * @flow_id:	generation << 32 | index, or UINT64_MAX: no flow
 * @event:	enum log_event
 * @state:	State, type, pifs of the flow at that time
 * @side:	Its sides at that time
 * @arg:	Meaning by event, see events.def
 */
struct log_record {
	uint64_t time;
	uint64_t flow_id;
	uint16_t event;
	uint8_t state;
	uint8_t type;
	uint8_t pif[SIDES];
	struct flowside side[SIDES];
	int64_t arg[LOG_ARGS];
};

/** struct flow_log - The ring, one writer and one reader of the same thread
 * @ring:	@size records
 * @size:	Power of two
 * @head:	Next to write
 * @tail:	Next to read
 * @lost:	Found no room since there was last some
 * @lost_at:	When the last of these was, ns
 * @level:	0 off, 1 life of flows, 2 events, 3 packets
 * @watched:	Somebody sees flows begin and end, whatever the level:
 *		FLOW_OPENED and FLOW_CLOSED, and not each step between
 * @cnt:	LOG_LOST is counted here
 * @base:	First entry of the flow table, to tell indexes
 */
struct flow_log {
	struct log_record *ring;
	uint32_t size;
	uint32_t head;
	uint32_t tail;
	uint64_t lost;
	uint64_t lost_at;
	uint8_t level;
	bool watched;
	struct counters *cnt;
	const struct flow *base;
};

extern const char *const log_event_names[LOG_NUM]; /* lower case */
extern const uint8_t log_event_levels[LOG_NUM];
extern const char *const log_event_fields[LOG_NUM][LOG_ARGS];

int flow_log_init(struct flow_log *log, uint32_t size, struct counters *cnt);
void flow_log_free(struct flow_log *log);

/* flow_log_put_() - Worker of flow_log(); call the macro */
void flow_log_put_(struct flow_log *log, uint64_t now, enum log_event ev,
		   const struct flow *flow, int64_t a0, int64_t a1, int64_t a2,
		   int64_t a3);

/* flow_log() - Record an event if its level is on; costs one compare if not */
#define flow_log(log, now, ev, flow, a0, a1, a2, a3)                           \
	do {                                                                   \
		if ((log)->level >= log_event_levels[LOG_##ev])                \
			flow_log_put_(log, now, LOG_##ev, flow, (int64_t)(a0), \
				      (int64_t)(a1), (int64_t)(a2),            \
				      (int64_t)(a3));                          \
	} while (0)

/* flow_log_life() - Record the beginning or the end of a flow for who watches */
#define flow_log_life(log, now, ev, flow, a0, a1)                              \
	do {                                                                   \
		if ((log)->watched ||                                          \
		    (log)->level >= log_event_levels[LOG_##ev])                \
			flow_log_put_(log, now, LOG_##ev, flow, (int64_t)(a0), \
				      (int64_t)(a1), 0, 0);                    \
	} while (0)

/* flow_log_get() - Take the oldest record; false when empty */
bool flow_log_get(struct flow_log *log, struct log_record *ret_record);

#endif /* PASSTPY_TABLE_FLOW_LOG_H */
