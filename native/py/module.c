/* SPDX-License-Identifier: GPL-2.0-or-later */
/* module.c - The extension module passtpy._native */

#include "py/module.h"
#include "py/confine.h"
#include "py/privilege.h"

static struct module_state *state_of(PyObject *module)
{
	return PyModule_GetState(module);
}

static int module_exec(PyObject *module)
{
	struct module_state *state = state_of(module);

	if (records_add_types(module, state) || constants_add(module))
		return -1;
	state->datapath = (PyTypeObject *)PyType_FromModuleAndSpec(
		module, &datapath_spec, NULL);
	if (!state->datapath)
		return -1;
	if (PyModule_AddType(module, state->datapath))
		return -1;
	if (PyModule_AddFunctions(module, passtpy_capture_methods))
		return -1;
	if (PyModule_AddFunctions(module, passtpy_confine_methods))
		return -1;
	if (PyModule_AddFunctions(module, passtpy_privilege_methods))
		return -1;
	return faults_add(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = state_of(module);

	Py_VISIT(state->datapath);
	Py_VISIT(state->miss);
	Py_VISIT(state->punt);
	Py_VISIT(state->gone);
	Py_VISIT(state->event);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = state_of(module);

	Py_CLEAR(state->datapath);
	Py_CLEAR(state->miss);
	Py_CLEAR(state->punt);
	Py_CLEAR(state->gone);
	Py_CLEAR(state->event);
	return 0;
}

static void module_free(void *module)
{
	(void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
	{ Py_mod_exec, module_exec },
	{ 0, NULL },
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "passtpy._native",
	.m_doc = "The C half of passtpy: Python decides, C moves.",
	.m_size = sizeof(struct module_state),
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
	.m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
	return PyModuleDef_Init(&module_def);
}
