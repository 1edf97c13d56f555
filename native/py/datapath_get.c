/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_get.c - From the Python object to the datapath, for every method */

#include "py/datapath_type.h"

struct datapath *py_datapath_get(struct py_datapath *self)
{
	if (self->busy) {
		PyErr_SetString(PyExc_RuntimeError,
				"the datapath runs in another thread");
		return NULL;
	}
	if (!self->dp)
		PyErr_SetString(PyExc_ValueError, "the datapath is closed");
	return self->dp;
}
