/* SPDX-License-Identifier: GPL-2.0-or-later */
/* filter.h - Choosing flows by a program that Python made of an expression
 *
 * A program is a row of steps in postfix order: a question about the flow adds
 * its answer to a stack, and the others join what is on top. Python evaluates
 * the same expressions for listings; a test compares both.
 */
#ifndef PASSTPY_TABLE_FILTER_H
#define PASSTPY_TABLE_FILTER_H

#include <stdbool.h>

#include "table/border.h"

#define FILTER_STEPS_MAX 1024
#define FILTER_DEPTH	 64	    /* answers that wait to be joined */
#define FILTER_NO_FLOW	 UINT64_MAX /* flow_id of a packet without flow */

/** enum filter_code - What a step does
 * @FILTER_NOT:	Invert the last answer
 * @FILTER_AND:	Join the last two
 * @FILTER_OR:	Join the last two
 * @FILTER_TYPE: Is enum flow_type one of the bits of @number?
 * @FILTER_ADDR: Is an address of the ends @arg within @value and @mask?
 * @FILTER_PORT: Is a port of the ends @arg from @low to @high?
 * @FILTER_PIF:	Did it begin at the enum pif @arg?
 * @FILTER_V4:	Is the address of who began it an IPv4 one (@arg 1), or not?
 * @FILTER_RULE: Was it admitted by the rule @number?
 * @FILTER_ID:	Is @number its flow_id?
 * @FILTER_COUNT: Does enum filter_count @arg compare with @number by @low?
 */
enum filter_code {
	FILTER_NOT,
	FILTER_AND,
	FILTER_OR,
	FILTER_TYPE,
	FILTER_ADDR,
	FILTER_PORT,
	FILTER_PIF,
	FILTER_V4,
	FILTER_RULE,
	FILTER_ID,
	FILTER_COUNT,
	FILTER_CODES
};

enum filter_ends { FILTER_ANY_END, FILTER_SRC, FILTER_DST };
enum filter_count { FILTER_BYTES, FILTER_PACKETS, FILTER_AGE, FILTER_IDLE };
enum filter_compare {
	FILTER_MORE,
	FILTER_LESS,
	FILTER_AT_LEAST,
	FILTER_AT_MOST,
	FILTER_EQUAL
};

/** struct filter_step - One step; "=BBHHHQ16s16s" in Python
 * @code:	enum filter_code
 * @arg:	Of the code
 * @low:	Of the code
 * @high:	Of the code
 * @number:	Of the code
 * @value:	Bits of an address that @mask selects
 * @mask:	Network mask over an inany
 */
struct filter_step {
	uint8_t code;
	uint8_t arg;
	uint16_t low;
	uint16_t high;
	uint16_t unused;
	uint64_t number;
	union inany value;
	union inany mask;
};

_Static_assert(sizeof(struct filter_step) == 48, "as Python packs it");

/* filter_is_sound() - Does every step know its code, and leave one answer? An
 * empty program is sound, and takes everything */
bool filter_is_sound(const struct filter_step *steps, unsigned n);

/**
 * filter_takes() - Does a sound program choose this flow?
 * @flow:	Flow; of a packet without one: who sent it to whom, @flow_id is
 *		FILTER_NO_FLOW
 * @now:	ns, for ages
 */
bool filter_takes(const struct filter_step *steps, unsigned n,
		  const struct border_flow *flow, uint64_t now);

#endif /* PASSTPY_TABLE_FILTER_H */
