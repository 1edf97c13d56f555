/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_vhost.h - What vhost-user asks of the datapath, as methods
 *
 * A backend whose guest is told of by messages has a file like this one and two
 * places that name it: the table of methods, and the module's constants.
 */
#ifndef PASSTPY_PY_DATAPATH_VHOST_H
#define PASSTPY_PY_DATAPATH_VHOST_H

#include "py/datapath_type.h"

PyObject *py_vhost_features(struct py_datapath *self, PyObject *number);
PyObject *py_vhost_memory(struct py_datapath *self, PyObject *value);
PyObject *py_vhost_ring(struct py_datapath *self, PyObject *args,
			PyObject *kwargs);
PyObject *py_vhost_call(struct py_datapath *self, PyObject *args);
PyObject *py_vhost_enable(struct py_datapath *self, PyObject *args);
PyObject *py_vhost_stop(struct py_datapath *self, PyObject *number);

#define DATAPATH_VHOST_METHODS                                                                             \
	{                                                                                                  \
		"vhost_features", METHOD(py_vhost_features), METH_O,                                       \
		SIGNATURE(                                                                                 \
			"vhost_features($self, features, /)") "Virtio features that were negotiated"       \
	},                                                                                                 \
		{ "vhost_memory", METHOD(py_vhost_memory), METH_O,                                         \
		  SIGNATURE(                                                                               \
			  "vhost_memory($self, regions, /)") "Map a guest's memory in place of the old" }, \
		{ "vhost_ring", METHOD(py_vhost_ring), METH_KW,                                            \
		  SIGNATURE(                                                                               \
			  "vhost_ring($self, index, *, size, desc, used, avail, "                          \
			  "base, kick_fd, call_fd)") "Start a ring, disabled" },                           \
		{ "vhost_call", METHOD(py_vhost_call), METH_VARARGS,                                       \
		  SIGNATURE(                                                                               \
			  "vhost_call($self, index, call_fd, /)") "Notify elsewhere from now on" },        \
		{ "vhost_enable", METHOD(py_vhost_enable), METH_VARARGS,                                   \
		  SIGNATURE(                                                                               \
			  "vhost_enable($self, index, enabled, /)") "Let frames pass, or not" },           \
	{                                                                                                  \
		"vhost_stop", METHOD(py_vhost_stop), METH_O,                                               \
			SIGNATURE(                                                                         \
				"vhost_stop($self, index, /)") "Stop a ring; return where it would go on"  \
	}

/* vhost_constants_add() - What Python must know of rings; 0, or -1 and an
 * exception */
int vhost_constants_add(PyObject *module);

#endif /* PASSTPY_PY_DATAPATH_VHOST_H */
