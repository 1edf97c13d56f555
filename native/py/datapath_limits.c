/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_limits.c - Limits of rules, and of the guest, as Python sets them */

#include "py/datapath_type.h"

#include <string.h>

#include "base/clock.h"
#include "core/turn.h"
#include "table/meter.h"

#define TOTAL_MAX INT64_MAX

/* limit() - A number of @value, or 0 where there is none */
static bool limit(PyObject *value, const char *what, uint64_t max,
		  uint64_t *ret_value)
{
	*ret_value = 0;
	return !value || parse_uint(value, what, max, ret_value);
}

PyObject *py_limit(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "rule",      "rate_in",   "rate_out",
				 "total_in",  "total_out", "flows",
				 "new_flows", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *value[7] = { NULL };
	struct meter_limits limits = { 0 };
	uint64_t rule, flows, new_flows;
	int err;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(
		    args, kwargs, "O|$OOOOOO", names, &value[0], &value[1],
		    &value[2], &value[3], &value[4], &value[5], &value[6]) ||
	    !parse_uint(value[0], "rule", UINT32_MAX, &rule) ||
	    !limit(value[1], "rate_in", METER_RATE_MAX,
		   &limits.rate[METER_IN]) ||
	    !limit(value[2], "rate_out", METER_RATE_MAX,
		   &limits.rate[METER_OUT]) ||
	    !limit(value[3], "total_in", TOTAL_MAX, &limits.total[METER_IN]) ||
	    !limit(value[4], "total_out", TOTAL_MAX,
		   &limits.total[METER_OUT]) ||
	    !limit(value[5], "flows", UINT32_MAX, &flows) ||
	    !limit(value[6], "new_flows", UINT32_MAX, &new_flows))
		return NULL;
	limits.flows = (uint32_t)flows;
	limits.new_flows = (uint32_t)new_flows;
	if (!time_is_virtual(&dp->ctx))
		dp->ctx.now = clock_now();
	err = meters_set(&dp->ctx.ft, (uint32_t)rule, &limits, dp->ctx.now);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_unlimit(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t rule;

	if (!dp || !parse_uint(number, "rule", UINT32_MAX, &rule))
		return NULL;
	meters_clear(&dp->ctx.ft, (uint32_t)rule);
	Py_RETURN_NONE;
}

static PyObject *counts_of(const struct meter *m)
{
	const struct meter_counts *n = &m->counts;

	return Py_BuildValue("(KKKKIKKO)",
			     (unsigned long long)n->used[METER_IN],
			     (unsigned long long)n->used[METER_OUT],
			     (unsigned long long)n->dropped[METER_IN],
			     (unsigned long long)n->dropped[METER_OUT],
			     (unsigned)n->flows, (unsigned long long)n->refused,
			     (unsigned long long)n->closed,
			     m->spent ? Py_True : Py_False);
}

PyObject *py_limits(struct py_datapath *self, PyObject *unused)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *dict = dp ? PyDict_New() : NULL;
	const struct meters *all = dp ? dp->ctx.ft.meters : NULL;

	(void)unused;
	for (uint32_t i = 1; dict && all && i < all->top; i++) {
		const struct meter *m = &all->meter[i];
		PyObject *rule, *counts;

		if (!m->listed)
			continue;
		rule = PyLong_FromUnsignedLong(m->rule);
		counts = counts_of(m);
		if (!rule || !counts || PyDict_SetItem(dict, rule, counts))
			Py_CLEAR(dict);
		Py_XDECREF(rule);
		Py_XDECREF(counts);
	}
	return dict;
}
