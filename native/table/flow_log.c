/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_log.c - Ring of log events on their way to Python
 *
 * Written while packets wait, so it only copies: names, addresses and text
 * are made by Python between turns. Head and tail run freely; their
 * difference is what is in the ring.
 */

#include "table/flow_log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/lower.h"
#include "base/sys.h"

#define EVENT(name, level, f0, f1, f2, f3)                        \
	static const char lower_##name[LOWER_MAX] = LOWER(#name); \
	_Static_assert(sizeof(#name) <= LOWER_MAX, #name " is too long");
#include "base/events.def"
#undef EVENT

const char *const log_event_names[LOG_NUM] = {
#define EVENT(name, level, f0, f1, f2, f3) [LOG_##name] = lower_##name,
#include "base/events.def"
#undef EVENT
};

const uint8_t log_event_levels[LOG_NUM] = {
#define EVENT(name, level, f0, f1, f2, f3) [LOG_##name] = (level),
#include "base/events.def"
#undef EVENT
};

const char *const log_event_fields[LOG_NUM][LOG_ARGS] = {
#define EVENT(name, level, f0, f1, f2, f3) [LOG_##name] = { f0, f1, f2, f3 },
#include "base/events.def"
#undef EVENT
};

/**
 * flow_log_init() - Allocate an empty ring, level 0
 * @log:	Filled, but for @base, which flow_table_init() sets
 * @size:	Records, a power of two
 * @cnt:	Where lost records are counted
 *
 * Return: 0, or -ENOMEM
 */
int flow_log_init(struct flow_log *log, uint32_t size, struct counters *cnt)
{
	assert(size && !(size & (size - 1)));

	log->ring = sys_calloc(size, sizeof(*log->ring));
	if (!log->ring)
		return -ENOMEM;
	log->size = size;
	log->head = 0;
	log->tail = 0;
	log->lost = 0;
	log->level = 0;
	log->watched = false;
	log->cnt = cnt;
	return 0;
}

void flow_log_free(struct flow_log *log)
{
	free(log->ring);
	log->ring = NULL;
	log->size = 0;
	log->level = 0;
}

/* flow_log_tell_lost() - Let an event stand where others found no room */
static void flow_log_tell_lost(struct flow_log *log)
{
	uint64_t lost = log->lost;

	log->lost = 0;
	if (lost)
		flow_log_put_(log, log->lost_at, LOG_EVENTS_LOST, NULL,
			      (int64_t)lost, 0, 0, 0);
}

void flow_log_put_(struct flow_log *log, uint64_t now, enum log_event ev,
		   const struct flow *flow, int64_t a0, int64_t a1, int64_t a2,
		   int64_t a3)
{
	uint32_t room = log->size - (log->head - log->tail);
	struct log_record *r;

	if (room < 1 + !!log->lost) {
		count(log->cnt, CNT_LOG_LOST);
		log->lost++;
		log->lost_at = now;
		return;
	}
	flow_log_tell_lost(log);
	r = &log->ring[log->head++ & (log->size - 1)];

	r->time = now;
	r->event = (uint16_t)ev;
	r->arg[0] = a0;
	r->arg[1] = a1;
	r->arg[2] = a2;
	r->arg[3] = a3;
	if (!flow) {
		r->flow_id = UINT64_MAX;
		r->state = FLOW_FREE;
		r->type = FLOW_TYPE_NONE;
		r->pif[INISIDE] = r->pif[TGTSIDE] = PIF_NONE;
		memset(r->side, 0, sizeof(r->side));
		return;
	}
	r->flow_id = (uint64_t)flow->f.generation << 32 |
		     (uint32_t)(flow - log->base);
	r->state = flow->f.state;
	r->type = flow->f.type;
	memcpy(r->pif, flow->f.pif, sizeof(r->pif));
	memcpy(r->side, flow->f.side, sizeof(r->side));
}

bool flow_log_get(struct flow_log *log, struct log_record *ret_record)
{
	if (log->head == log->tail)
		flow_log_tell_lost(log);
	if (log->head == log->tail)
		return false;
	*ret_record = log->ring[log->tail++ & (log->size - 1)];
	return true;
}
