/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_capture.c - Captures as Python starts, empties and stops them */

#include "py/datapath_type.h"

#include <string.h>

#include "link/capture.h"

#define TAKE_MAX (1U << 20) /* bytes of one capture_take() */

/* parse_program() - Steps of a filter, as they lie in a bytes object */
static bool parse_program(PyObject *value, struct capture_wish *wish)
{
	size_t size;

	if (!PyBytes_Check(value)) {
		PyErr_SetString(PyExc_TypeError, "filter: bytes expected");
		return false;
	}
	size = (size_t)PyBytes_Size(value);
	wish->steps = (const void *)PyBytes_AsString(value);
	wish->n_steps = (unsigned)(size / sizeof(*wish->steps));
	if (!(size % sizeof(*wish->steps)) &&
	    size / sizeof(*wish->steps) <= FILTER_STEPS_MAX &&
	    filter_is_sound(wish->steps, wish->n_steps))
		return true;
	PyErr_SetString(PyExc_ValueError, "filter: not sound");
	return false;
}

PyObject *py_capture_start(struct py_datapath *self, PyObject *args,
			   PyObject *kwargs)
{
	static char *names[] = { "filter", "sides", "snaplen", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *program, *number[2];
	struct capture_wish wish;
	uint64_t sides, snaplen;
	unsigned n;
	int err;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OOO", names, &program,
					 &number[0], &number[1]) ||
	    !parse_program(program, &wish) ||
	    !parse_uint(number[0], "sides", (1U << CAPTURE_SIDES) - 1,
			&sides) ||
	    !parse_uint(number[1], "snaplen", UINT32_MAX, &snaplen))
		return NULL;
	wish.sides = (unsigned)sides;
	wish.snaplen = (uint32_t)snaplen;
	err = capture_start(&dp->ctx.tap.captures, &dp->ctx.ft, &dp->ctx.now,
			    &wish, &n);
	return err ? raise_errno(-err) : PyLong_FromUnsignedLong(n);
}

/* parse_capture() - The number of a capture that is on */
static bool parse_capture(const struct datapath *dp, PyObject *value,
			  unsigned *ret_n)
{
	const struct captures *set = dp->ctx.tap.captures;
	uint64_t n;

	if (!parse_uint(value, "number", CAPTURES_MAX - 1, &n))
		return false;
	*ret_n = (unsigned)n;
	if (set && set->list[n])
		return true;
	PyErr_SetString(PyExc_ValueError, "number: no such capture");
	return false;
}

PyObject *py_capture_take(struct py_datapath *self, PyObject *args,
			  PyObject *kwargs)
{
	static char *names[] = { "number", "room", "packets", "last", NULL };
	struct datapath *dp = py_datapath_get(self);
	struct capture_take take = { 0 };
	PyObject *number, *max[2], *blocks;
	uint64_t room;
	void *scratch;
	int last = 0;
	unsigned n;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|p", names, &number,
					 &max[0], &max[1], &last) ||
	    !parse_capture(dp, number, &n) ||
	    !parse_uint(max[0], "room", TAKE_MAX, &room) ||
	    !parse_uint(max[1], "packets", UINT64_MAX, &take.packets_max))
		return NULL;
	scratch = PyMem_Malloc(room);
	if (!scratch)
		return PyErr_NoMemory();
	take.out = scratch;
	take.room = (uint32_t)room;
	take.last = last;
	capture_take(dp->ctx.tap.captures, n, &take);
	blocks = PyBytes_FromStringAndSize(scratch, (Py_ssize_t)take.len);
	PyMem_Free(scratch);
	if (!blocks)
		return NULL;
	return Py_BuildValue("(NKN)", blocks, (unsigned long long)take.packets,
			     PyBool_FromLong(take.full));
}

PyObject *py_capture_counts(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	const struct capture *cap;
	unsigned n;

	if (!dp || !parse_capture(dp, number, &n))
		return NULL;
	cap = dp->ctx.tap.captures->list[n];
	return Py_BuildValue("(KKKKK)",
			     (unsigned long long)cap->seen[CAPTURE_TAP],
			     (unsigned long long)cap->dropped[CAPTURE_TAP],
			     (unsigned long long)cap->seen[CAPTURE_SOCK],
			     (unsigned long long)cap->dropped[CAPTURE_SOCK],
			     (unsigned long long)(cap->head - cap->tail));
}

PyObject *py_capture_finish(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	unsigned n;

	if (!dp || !parse_capture(dp, number, &n))
		return NULL;
	capture_finish(dp->ctx.tap.captures, n);
	Py_RETURN_NONE;
}

PyObject *py_capture_stop(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	unsigned n;

	if (!dp || !parse_capture(dp, number, &n))
		return NULL;
	capture_stop(&dp->ctx.tap.captures, n);
	Py_RETURN_NONE;
}

static PyObject *py_filter_takes(PyObject *module, PyObject *args)
{
	struct capture_wish wish;
	PyObject *program, *number;
	struct border_flow flow;
	Py_buffer record;
	uint64_t now;
	bool whole;

	(void)module;
	if (!PyArg_ParseTuple(args, "Oy*O", &program, &record, &number))
		return NULL;
	whole = record.len == sizeof(flow);
	if (whole)
		memcpy(&flow, record.buf, sizeof(flow));
	PyBuffer_Release(&record);
	if (!whole) {
		PyErr_SetString(PyExc_ValueError, "flow: not one record");
		return NULL;
	}
	if (!parse_program(program, &wish) ||
	    !parse_uint(number, "now", UINT64_MAX, &now))
		return NULL;
	return PyBool_FromLong(
		filter_takes(wish.steps, wish.n_steps, &flow, now));
}

PyMethodDef passtpy_capture_methods[] = {
	{ "filter_takes", py_filter_takes, METH_VARARGS,
	  SIGNATURE(
		  "filter_takes(filter, flow, now, /)") "Does a filter choose this packed flow?" },
	{ NULL, NULL, 0, NULL },
};
