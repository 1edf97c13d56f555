/* SPDX-License-Identifier: GPL-2.0-or-later */
/* extract.h - One frame, and what flow_extract() says of it */
#ifndef PASSTPY_TESTS_EXTRACT_H
#define PASSTPY_TESTS_EXTRACT_H

#include "frames.h"
#include "link/extract.h"

static struct counters cnt;
static struct frame frame;
static struct sample s;

static inline enum extract extract(const struct vnet_hdr *vh)
{
	cnt = (struct counters){ 0 };
	memset(&frame, 0xaa, sizeof(frame));
	return flow_extract(&frame, s.data, s.len, vh, &cnt);
}

static inline void is_flow(void)
{
	CHECK_EQ(extract(NULL), EXTRACT_FLOW);
}

static inline void is_punted(enum punt_kind kind)
{
	CHECK_EQ(extract(NULL), EXTRACT_PUNT);
	CHECK_EQ(frame.punt, kind);
}

/* is_dropped() - For this reason, counted once, and for no other */
static inline void is_dropped_with(const struct vnet_hdr *vh,
				   enum counter reason)
{
	CHECK_EQ(extract(vh), EXTRACT_DROP);
	CHECK_EQ(cnt.n[reason], 1);
	for (int i = 0; i < CNT_NUM; i++)
		CHECK(i == (int)reason || !cnt.n[i]);
}

static inline void is_dropped(enum counter reason)
{
	is_dropped_with(NULL, reason);
}

static inline void simple(bool v4, uint8_t proto)
{
	sample_simple(&s, v4, proto);
}

#endif /* PASSTPY_TESTS_EXTRACT_H */
