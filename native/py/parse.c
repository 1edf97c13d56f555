/* SPDX-License-Identifier: GPL-2.0-or-later */
/* parse.c - From Python values to C, with checks and without formats */

#include "py/module.h"

#include <errno.h>
#include <string.h>

/* Order of passtpy.flow.Verdict */
enum {
	ITEM_ACTION,
	ITEM_PIF,
	ITEM_EADDR,
	ITEM_EPORT,
	ITEM_OADDR,
	ITEM_OPORT,
	ITEM_RULE,
	ITEM_GENERATION,
	ITEM_PROXY,
	ITEM_CROSSES,
	ITEMS
};

PyObject *raise_errno(int err)
{
	errno = err;
	return PyErr_SetFromErrno(PyExc_OSError);
}

/* wrong_type() - Raise TypeError: @what is not an @expected */
static void wrong_type(PyObject *value, const char *what, const char *expected)
{
	PyObject *name = PyType_GetName(Py_TYPE(value));

	if (!name)
		return;
	PyErr_Format(PyExc_TypeError, "%s: %s expected, got %U", what, expected,
		     name);
	Py_DECREF(name);
}

bool parse_uint(PyObject *value, const char *what, uint64_t max,
		uint64_t *ret_value)
{
	unsigned long long number;

	if (!PyLong_Check(value)) {
		wrong_type(value, what, "int");
		return false;
	}
	number = PyLong_AsUnsignedLongLong(value);
	if (number == (unsigned long long)-1 && PyErr_Occurred()) {
		if (!PyErr_ExceptionMatches(PyExc_OverflowError))
			return false;
		PyErr_Clear(); /* say what is allowed instead */
	} else if (number <= max) {
		*ret_value = number;
		return true;
	}
	PyErr_Format(PyExc_ValueError, "%s: not within 0 to %llu", what,
		     (unsigned long long)max);
	return false;
}

bool parse_bytes(PyObject *value, const char *what, void *dst, size_t len)
{
	if (!PyBytes_Check(value)) {
		wrong_type(value, what, "bytes");
		return false;
	}
	if ((size_t)PyBytes_Size(value) != len) {
		PyErr_Format(PyExc_ValueError, "%s: %zu bytes expected", what,
			     len);
		return false;
	}
	memcpy(dst, PyBytes_AsString(value), len);
	return true;
}

static bool parse_side(PyObject *tuple, struct flowside *side)
{
	PyObject *const eaddr = PyTuple_GetItem(tuple, ITEM_EADDR);
	PyObject *const oaddr = PyTuple_GetItem(tuple, ITEM_OADDR);
	uint64_t eport, oport;

	if (!parse_bytes(eaddr, "eaddr", &side->eaddr, sizeof(side->eaddr)) ||
	    !parse_bytes(oaddr, "oaddr", &side->oaddr, sizeof(side->oaddr)) ||
	    !parse_uint(PyTuple_GetItem(tuple, ITEM_EPORT), "eport", UINT16_MAX,
			&eport) ||
	    !parse_uint(PyTuple_GetItem(tuple, ITEM_OPORT), "oport", UINT16_MAX,
			&oport))
		return false;
	side->eport = (uint16_t)eport;
	side->oport = (uint16_t)oport;
	return true;
}

bool parse_verdict(PyObject *value, struct verdict *v)
{
	uint64_t action, pif, rule, generation, proxy, crosses;

	if (!PyTuple_Check(value) || PyTuple_Size(value) != ITEMS) {
		PyErr_Format(PyExc_TypeError,
			     "verdict: tuple of %d items expected", ITEMS);
		return false;
	}
	if (!parse_uint(PyTuple_GetItem(value, ITEM_ACTION), "action",
			VERDICT_NUM - 1, &action) ||
	    !parse_uint(PyTuple_GetItem(value, ITEM_PIF), "pif", PIF_NUM - 1,
			&pif) ||
	    !parse_uint(PyTuple_GetItem(value, ITEM_RULE), "rule", UINT32_MAX,
			&rule) ||
	    !parse_uint(PyTuple_GetItem(value, ITEM_GENERATION), "generation",
			UINT32_MAX, &generation) ||
	    !parse_uint(PyTuple_GetItem(value, ITEM_PROXY), "proxy",
			VERDICT_PROXY_MAX, &proxy) ||
	    !parse_uint(PyTuple_GetItem(value, ITEM_CROSSES), "crosses", 1,
			&crosses))
		return false;
	v->crosses = crosses;
	v->proxy = (uint8_t)proxy;
	v->action = (uint8_t)action;
	v->pif = (uint8_t)pif;
	v->rule = (uint32_t)rule;
	v->generation = (uint32_t)generation;
	return parse_side(value, &v->side);
}
