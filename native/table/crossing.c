/* SPDX-License-Identifier: GPL-2.0-or-later */
/* crossing.c - Datagrams of clients whose server may have the other family alone */

#include "table/crossing.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/sys.h"

#define SERVED_MASK (CROSSING_SERVED - 1)

/** struct crossing_kept - What begins one flow
 * @flow_id:	Whose it is
 * @until:	ns, when it is of no use any more
 * @fill:	Bytes used of @data
 * @data:	Datagrams, each with its length before it
 */
struct crossing_kept {
	uint64_t flow_id;
	uint64_t until;
	uint32_t fill;
	uint8_t data[CROSSING_BUF - 2 * sizeof(uint64_t) - sizeof(uint32_t)];
};

_Static_assert(!(CROSSING_SERVED & SERVED_MASK), "a power of two");

int crossings_init(struct crossings *x)
{
	struct crossing_kept *kept = sys_mmap(
		NULL, CROSSING_FLOWS * sizeof(*kept), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (kept == MAP_FAILED)
		return -ENOMEM;
	*x = (struct crossings){ .kept = kept };
	return 0;
}

void crossings_free(struct crossings *x)
{
	if (!x->kept)
		return;
	munmap(x->kept, CROSSING_FLOWS * sizeof(*x->kept));
	x->kept = NULL;
}

uint16_t crossings_begin(struct crossings *x, uint64_t flow_id, uint64_t now)
{
	uint16_t slot = x->next;

	x->next = (uint16_t)((slot + 1) % CROSSING_FLOWS);
	x->kept[slot].flow_id = flow_id;
	x->kept[slot].until = now + CROSSING_AGE;
	x->kept[slot].fill = 0;
	return slot;
}

void crossings_keep(struct crossings *x, uint16_t slot, const void *data,
		    uint32_t len)
{
	struct crossing_kept *k = &x->kept[slot];
	uint8_t *at = k->data + k->fill;

	if (k->fill + sizeof(len) + len > sizeof(k->data))
		return;
	memcpy(at, &len, sizeof(len));
	memcpy(at + sizeof(len), data, len);
	k->fill += (uint32_t)sizeof(len) + len;
}

const uint8_t *crossings_next(const struct crossings *x, uint16_t slot,
			      uint64_t flow_id, uint64_t now, uint32_t *pos,
			      uint32_t *ret_len)
{
	const struct crossing_kept *k = &x->kept[slot];
	const uint8_t *at = k->data + *pos;

	assert(slot < CROSSING_FLOWS);
	if (k->flow_id != flow_id || now >= k->until || *pos >= k->fill)
		return NULL;
	memcpy(ret_len, at, sizeof(*ret_len));
	*pos += (uint32_t)sizeof(*ret_len) + *ret_len;
	return at + sizeof(*ret_len);
}

void crossings_serve(struct crossings *x, uint32_t number, uint64_t flow_id)
{
	x->served[number & SERVED_MASK].number = number;
	x->served[number & SERVED_MASK].flow_id = flow_id;
}

uint64_t crossings_served(const struct crossings *x, uint32_t number)
{
	if (x->served[number & SERVED_MASK].number != number)
		return 0;
	return x->served[number & SERVED_MASK].flow_id;
}
