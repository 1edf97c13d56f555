/* SPDX-License-Identifier: GPL-2.0-or-later */
/* privilege.h - System calls that CPython 3.11 lacks */
#ifndef PASSTPY_PY_PRIVILEGE_H
#define PASSTPY_PY_PRIVILEGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Functions that module.c adds to passtpy._native; ends with an empty entry */
extern PyMethodDef passtpy_privilege_methods[];

#endif /* PASSTPY_PY_PRIVILEGE_H */
