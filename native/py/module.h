/* SPDX-License-Identifier: GPL-2.0-or-later */
/* module.h - What the files of native/py/ share: module state, conversions */
#ifndef PASSTPY_PY_MODULE_H
#define PASSTPY_PY_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "core/datapath.h"

/** struct module_state - Types of the records and of the datapath */
struct module_state {
	PyTypeObject *datapath;
	PyTypeObject *miss;
	PyTypeObject *punt;
	PyTypeObject *said;
	PyTypeObject *gone;
	PyTypeObject *event;
};

/* SIGNATURE() - Begins a docstring: what inspect.signature(), and the check of
 * the stub file, read; the text is Python's */
#define SIGNATURE(text) text "\n--\n\n"

/* datapath_type.c */
extern PyType_Spec datapath_spec;

/* records.c: each returns a new reference, or NULL with an exception set */
int records_add_types(PyObject *module, struct module_state *state);
PyObject *record_from_miss(const struct module_state *state,
			   const struct stage *stage, const struct miss *m);
PyObject *record_from_punt(const struct module_state *state,
			   const struct border_punts *punts, uint32_t i);
PyObject *record_from_said(const struct module_state *state,
			   const struct said *said);
PyObject *record_from_errno(const struct module_state *state, int err);
PyObject *record_from_event(const struct module_state *state,
			    const struct log_record *event);

/* datapath_capture.c: functions that need no datapath */
extern PyMethodDef passtpy_capture_methods[];

/* faults.c: what only debug builds have */
int faults_add(PyObject *module);

/* constants.c */
int constants_add(PyObject *module);

/* parse.c: all return false, or -1, with an exception set */
PyObject *raise_errno(int err); /* positive errno; always NULL */
bool parse_uint(PyObject *value, const char *what, uint64_t max,
		uint64_t *ret_value);
bool parse_verdict(PyObject *value, struct verdict *v);
bool parse_bytes(PyObject *value, const char *what, void *dst, size_t len);

#endif /* PASSTPY_PY_MODULE_H */
