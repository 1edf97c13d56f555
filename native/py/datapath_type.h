/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_type.h - The object behind Datapath, shared by its files */
#ifndef PASSTPY_PY_DATAPATH_TYPE_H
#define PASSTPY_PY_DATAPATH_TYPE_H

#include "py/module.h"

/** struct py_datapath - A Datapath object
 * @dp:		The datapath, or NULL when closed
 * @busy:	A turn is running, without the GIL
 */
struct py_datapath {
	PyObject_HEAD
	struct datapath *dp;
	bool busy;
};

/* py_datapath_get() - The open, idle datapath, or NULL with an exception */
struct datapath *py_datapath_get(struct py_datapath *self);

/* datapath_listen.c: listening sockets */
PyObject *py_listen(struct py_datapath *self, PyObject *args, PyObject *kwargs);
PyObject *py_listen_nameless(struct py_datapath *self, PyObject *args,
			     PyObject *kwargs);
PyObject *py_unlisten(struct py_datapath *self, PyObject *number);
PyObject *py_renumber(struct py_datapath *self, PyObject *args);

/* datapath_control.c: everything that is not on the road of a flow */
extern PyGetSetDef py_datapath_getset[];
PyObject *py_attach(struct py_datapath *self, PyObject *number);
PyObject *py_detach(struct py_datapath *self, PyObject *unused);
PyObject *py_inject(struct py_datapath *self, PyObject *frame);
PyObject *py_events(struct py_datapath *self, PyObject *args, PyObject *kwargs);
PyObject *py_close_flow(struct py_datapath *self, PyObject *args,
			PyObject *kwargs);
PyObject *py_adopt(struct py_datapath *self, PyObject *args, PyObject *kwargs);
PyObject *py_connect(struct py_datapath *self, PyObject *args);
PyObject *py_verdict(struct py_datapath *self, PyObject *args,
		     PyObject *kwargs);
PyObject *py_flows(struct py_datapath *self, PyObject *args, PyObject *kwargs);
PyObject *py_counters(struct py_datapath *self, PyObject *unused);
PyObject *py_our_addrs(struct py_datapath *self, PyObject *args,
		       PyObject *kwargs);
PyObject *py_outbound_if(struct py_datapath *self, PyObject *args,
			 PyObject *kwargs);
PyObject *py_pcap(struct py_datapath *self, PyObject *fd);
PyObject *py_pcap_run(struct py_datapath *self, PyObject *unused);
PyObject *py_ping_raw(struct py_datapath *self, PyObject *number);
PyObject *py_impair(struct py_datapath *self, PyObject *args, PyObject *kwargs);

/* datapath_limits.c: limits of rules */
PyObject *py_limit(struct py_datapath *self, PyObject *args, PyObject *kwargs);
PyObject *py_unlimit(struct py_datapath *self, PyObject *number);
PyObject *py_limits(struct py_datapath *self, PyObject *unused);

/* datapath_capture.c: captures that come and go */
PyObject *py_capture_start(struct py_datapath *self, PyObject *args,
			   PyObject *kwargs);
PyObject *py_capture_take(struct py_datapath *self, PyObject *args,
			  PyObject *kwargs);
PyObject *py_capture_counts(struct py_datapath *self, PyObject *number);
PyObject *py_capture_finish(struct py_datapath *self, PyObject *number);
PyObject *py_capture_stop(struct py_datapath *self, PyObject *number);

#ifdef PASSTPY_FAULTS
PyObject *py_faults(struct py_datapath *self, PyObject *args, PyObject *kwargs);
#endif

/* Rows of a table of methods */
#define METHOD(f) ((PyCFunction)(void (*)(void))(f))
#define METH_KW	  (METH_VARARGS | METH_KEYWORDS)

#endif /* PASSTPY_PY_DATAPATH_TYPE_H */
