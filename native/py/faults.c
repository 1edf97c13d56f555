/* SPDX-License-Identifier: GPL-2.0-or-later */
/* faults.c - Calls that fail on request, as functions of a debug build's module */

#include "py/module.h"

#include "base/faults.h"

#ifdef PASSTPY_FAULTS

#include <string.h>

/* file_of() - A source as the tree names it, wherever the tree is */
static const char *file_of(const struct fault_site *site)
{
	const char *file = strstr(site->file, "native/");

	return file ? file : site->file;
}

static PyObject *py_fault_sites(PyObject *module, PyObject *unused)
{
	struct fault_site *const *sites;
	PyObject *list;
	unsigned n;

	(void)module;
	(void)unused;
	sites = fault_sites(&n);
	list = PyList_New(n);
	for (unsigned i = 0; list && i < n; i++) {
		const struct fault_site *s = sites[i];
		PyObject *item = Py_BuildValue("(sis(iiii)KK)", file_of(s),
					       s->line, s->call, s->errors[0],
					       s->errors[1], s->errors[2],
					       s->errors[3],
					       (unsigned long long)s->calls,
					       (unsigned long long)s->failed);

		if (item)
			PyList_SetItem(list, i, item);
		else
			Py_CLEAR(list);
	}
	return list;
}

static PyObject *py_fault(PyObject *module, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "", "", "after", "times", NULL };
	unsigned long long site, error, after = 0, times = 1;
	int err;

	(void)module;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK|$KK", names, &site,
					 &error, &after, &times))
		return NULL;
	err = fault_arm(site, error, after, times);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{ "fault_sites", py_fault_sites, METH_NOARGS,
	  SIGNATURE(
		  "fault_sites($module, /)") "All places where a call can be made to fail" },
	{ "fault", (PyCFunction)(void (*)(void))py_fault,
	  METH_VARARGS | METH_KEYWORDS,
	  SIGNATURE(
		  "fault($module, site, error, /, *, after=0, times=1)") "Let a call fail" },
	{ NULL, NULL, 0, NULL },
};

int faults_add(PyObject *module)
{
	return PyModule_AddFunctions(module, methods);
}

#else

int faults_add(PyObject *module)
{
	(void)module;
	return 0;
}

#endif /* PASSTPY_FAULTS */
