/* SPDX-License-Identifier: GPL-2.0-or-later */
/* border.c - Flows become records that cross to Python */

#include "table/border.h"

#include <string.h>

#include "base/macros.h"

const char *const punt_kind_names[] = {
	[PUNT_NONE] = "NONE",	[PUNT_ARP] = "ARP",
	[PUNT_ND] = "ND",	[PUNT_DHCP4] = "DHCP4",
	[PUNT_DHCP6] = "DHCP6", [PUNT_MEMBERSHIP] = "MEMBERSHIP",
	[PUNT_GROUP] = "GROUP", [PUNT_DNS] = "DNS",
};
_Static_assert(ARRAY_SIZE(punt_kind_names) == PUNT_NUM, "one name each");

static void fill_sides(struct border_flow *r, const struct flowside *side)
{
	r->eaddr0 = side[INISIDE].eaddr;
	r->oaddr0 = side[INISIDE].oaddr;
	r->eaddr1 = side[TGTSIDE].eaddr;
	r->oaddr1 = side[TGTSIDE].oaddr;
	r->eport0 = side[INISIDE].eport;
	r->oport0 = side[INISIDE].oport;
	r->eport1 = side[TGTSIDE].eport;
	r->oport1 = side[TGTSIDE].oport;
}

void border_flow_fill(struct border_flow *r, const struct flow_table *ft,
		      const struct flow *flow)
{
	const struct flow_common *f = &flow->f;

	*r = (struct border_flow){
		.flow_id = flow_id(ft, flow),
		.created_ns = f->created,
		.last_use_ns = f->last_use,
		.packets0 = f->packets[INISIDE],
		.bytes0 = f->bytes[INISIDE],
		.packets1 = f->packets[TGTSIDE],
		.bytes1 = f->bytes[TGTSIDE],
		.rule = f->rule,
		.generation = f->policy,
		.listener = f->listener,
		.proto = flow_type_proto[f->type],
		.type = f->type,
		.state = f->state,
		.pif0 = f->pif[INISIDE],
		.pif1 = f->pif[TGTSIDE],
		.tcp_flags0 = f->tcp_flags[INISIDE],
		.tcp_flags1 = f->tcp_flags[TGTSIDE],
	};
	fill_sides(r, f->side);
}

void border_flow_from_log(struct border_flow *r, const struct log_record *event)
{
	*r = (struct border_flow){
		.flow_id = event->flow_id,
		.listener = -1,
		.proto = flow_type_proto[event->type],
		.type = event->type,
		.state = event->state,
		.pif0 = event->pif[INISIDE],
		.pif1 = event->pif[TGTSIDE],
	};
	fill_sides(r, event->side);
}

/** struct page - A page of records while flow_snapshot() fills it */
struct page {
	const struct flow_table *ft;
	unsigned char *to;
	unsigned count;
};

static void page_add(void *arg, const struct flow *flow)
{
	struct border_flow record;
	struct page *page = arg;

	border_flow_fill(&record, page->ft, flow);
	memcpy(page->to + page->count++ * sizeof(record), &record,
	       sizeof(record));
}

unsigned border_flow_page(const struct flow_table *ft, uint32_t *cursor,
			  void *to, unsigned limit)
{
	struct page page = { .ft = ft, .to = to };

	flow_snapshot(ft, cursor, page_add, &page, limit);
	return page.count;
}
