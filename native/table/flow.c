/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow.c - Names of the enums of flow.h, as Python and its logs show them */

#include "table/flow.h"

#include "base/macros.h"

#define ASSERT_ONE_EACH(table, num) \
	_Static_assert(ARRAY_SIZE(table) == (num), "one row for each value")

const char *const pif_names[] = {
	[PIF_NONE] = "NONE",
	[PIF_HOST] = "HOST",
	[PIF_TAP] = "TAP",
	[PIF_SPLICE] = "SPLICE",
};
ASSERT_ONE_EACH(pif_names, PIF_NUM);

const char *const flow_state_names[] = {
	[FLOW_FREE] = "FREE", [FLOW_NEW] = "NEW",     [FLOW_INI] = "INI",
	[FLOW_TGT] = "TGT",   [FLOW_TYPED] = "TYPED", [FLOW_ACTIVE] = "ACTIVE",
};
ASSERT_ONE_EACH(flow_state_names, FLOW_NUM_STATES);

const char *const flow_type_names[] = {
	[FLOW_TYPE_NONE] = "NONE",	  [FLOW_TCP] = "TCP",
	[FLOW_TCP_SPLICE] = "TCP_SPLICE", [FLOW_PING4] = "PING4",
	[FLOW_PING6] = "PING6",		  [FLOW_UDP] = "UDP",
	[FLOW_UDP_SPLICE] = "UDP_SPLICE",
};
ASSERT_ONE_EACH(flow_type_names, FLOW_NUM_TYPES);

const uint8_t flow_type_proto[] = {
	[FLOW_TYPE_NONE] = 0,
	[FLOW_TCP] = IPPROTO_TCP,
	[FLOW_TCP_SPLICE] = IPPROTO_TCP,
	[FLOW_PING4] = IPPROTO_ICMP,
	[FLOW_PING6] = IPPROTO_ICMPV6,
	[FLOW_UDP] = IPPROTO_UDP,
	[FLOW_UDP_SPLICE] = IPPROTO_UDP,
};
ASSERT_ONE_EACH(flow_type_proto, FLOW_NUM_TYPES);

const char *const flow_why_names[] = {
	[WHY_NONE] = "NONE",	       [WHY_DONE] = "DONE",
	[WHY_RST_GUEST] = "RST_GUEST", [WHY_RST_PEER] = "RST_PEER",
	[WHY_REFUSED] = "REFUSED",     [WHY_UNREACHABLE] = "UNREACHABLE",
	[WHY_TIMEOUT] = "TIMEOUT",     [WHY_IDLE] = "IDLE",
	[WHY_NO_BUFFER] = "NO_BUFFER", [WHY_SHUTDOWN] = "SHUTDOWN",
	[WHY_ASKED] = "ASKED",	       [WHY_POLICY] = "POLICY",
	[WHY_EVICTED] = "EVICTED",     [WHY_LIMIT] = "LIMIT",
};
ASSERT_ONE_EACH(flow_why_names, WHY_NUM);

const char *const verdict_action_names[] = {
	[VERDICT_DROP] = "DROP",       [VERDICT_FORWARD] = "FORWARD",
	[VERDICT_SPLICE] = "SPLICE",   [VERDICT_REJECT] = "REJECT",
	[VERDICT_INSPECT] = "INSPECT",
};
ASSERT_ONE_EACH(verdict_action_names, VERDICT_NUM);
