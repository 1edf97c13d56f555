/* SPDX-License-Identifier: GPL-2.0-or-later */
/* constants.c - Names of enums, in their order, and limits Python must know */

#include "base/macros.h"
#include "py/datapath_vhost.h"
#include "py/module.h"

/* names_add() - Add a tuple of strings to the module */
static int names_add(PyObject *module, const char *attribute,
		     const char *const *names, size_t n)
{
	PyObject *tuple = PyTuple_New((Py_ssize_t)n);
	int rc;

	if (!tuple)
		return -1;
	for (size_t i = 0; i < n; i++) {
		PyObject *name = PyUnicode_InternFromString(names[i]);

		if (!name) {
			Py_DECREF(tuple);
			return -1;
		}
		PyTuple_SetItem(tuple, (Py_ssize_t)i, name);
	}
	rc = PyModule_AddObjectRef(module, attribute, tuple);
	Py_DECREF(tuple);
	return rc;
}

/* event_new() - (name, level, (field, ...)) of a log event */
static PyObject *event_new(unsigned i)
{
	const char *const *fields = log_event_fields[i];
	PyObject *names, *event;
	Py_ssize_t n = 0;

	while (n < LOG_ARGS && fields[n] && *fields[n])
		n++;
	names = PyTuple_New(n);
	if (!names)
		return NULL;
	for (Py_ssize_t k = 0; k < n; k++) {
		PyObject *name = PyUnicode_InternFromString(fields[k]);

		if (!name) {
			Py_DECREF(names);
			return NULL;
		}
		PyTuple_SetItem(names, k, name);
	}
	event = Py_BuildValue("(siO)", log_event_names[i],
			      (int)log_event_levels[i], names);
	Py_DECREF(names);
	return event;
}

static int events_add(PyObject *module)
{
	PyObject *events = PyTuple_New(LOG_NUM);
	int rc;

	if (!events)
		return -1;
	for (unsigned i = 0; i < LOG_NUM; i++) {
		PyObject *event = event_new(i);

		if (!event) {
			Py_DECREF(events);
			return -1;
		}
		PyTuple_SetItem(events, i, event);
	}
	rc = PyModule_AddObjectRef(module, "EVENTS", events);
	Py_DECREF(events);
	return rc;
}

/* FLOW_RECORD: (name, format, offset) of each field of a packed flow */
static int flow_record_add(PyObject *module)
{
	static const struct {
		const char *name, *format;
		size_t offset;
	} fields[] = {
#define FIELD(format, type, name) \
	{ #name, format, offsetof(struct border_flow, name) },
#include "table/border_flow.def"
#undef FIELD
	};
	PyObject *tuple = PyTuple_New(ARRAY_SIZE(fields));
	int rc;

	for (size_t i = 0; tuple && i < ARRAY_SIZE(fields); i++) {
		PyObject *field = Py_BuildValue("(ssn)", fields[i].name,
						fields[i].format,
						(Py_ssize_t)fields[i].offset);

		if (field)
			PyTuple_SetItem(tuple, (Py_ssize_t)i, field);
		else
			Py_CLEAR(tuple);
	}
	rc = tuple ? PyModule_AddObjectRef(module, "FLOW_RECORD", tuple) : -1;
	Py_XDECREF(tuple);
	return rc;
}

static int limits_add(PyObject *module)
{
	if (PyModule_AddIntConstant(module, "OFFLOAD_CSUM", TAP_OFFLOAD_CSUM) ||
	    PyModule_AddIntConstant(module, "OFFLOAD_TSO4", TAP_OFFLOAD_TSO4) ||
	    PyModule_AddIntConstant(module, "OFFLOAD_TSO6", TAP_OFFLOAD_TSO6) ||
	    PyModule_AddIntConstant(module, "OFFLOAD_USO4", TAP_OFFLOAD_USO4) ||
	    PyModule_AddIntConstant(module, "OFFLOAD_USO6", TAP_OFFLOAD_USO6) ||
	    PyModule_AddIntConstant(module, "MISS_DEADLINE_NS",
				    (long)STAGE_DEADLINE) ||
	    PyModule_AddIntConstant(module, "FLOW_RECORD_SIZE",
				    sizeof(struct border_flow)) ||
	    PyModule_AddIntConstant(module, "LISTEN_MAX", LISTEN_MAX))
		return -1;
	return vhost_constants_add(module);
}

int constants_add(PyObject *module)
{
	if (names_add(module, "PIF", pif_names, PIF_NUM) ||
	    names_add(module, "FLOW_TYPES", flow_type_names, FLOW_NUM_TYPES) ||
	    names_add(module, "FLOW_STATES", flow_state_names,
		      FLOW_NUM_STATES) ||
	    names_add(module, "FLOW_WHYS", flow_why_names, WHY_NUM) ||
	    names_add(module, "PUNT_KINDS", punt_kind_names, PUNT_NUM) ||
	    names_add(module, "ACTIONS", verdict_action_names, VERDICT_NUM) ||
	    names_add(module, "COUNTERS", counter_names, CNT_NUM) ||
	    names_add(module, "COUNTER_MEANINGS", counter_meanings, CNT_NUM))
		return -1;
	if (events_add(module) || flow_record_add(module))
		return -1;
	return limits_add(module);
}
