/* SPDX-License-Identifier: GPL-2.0-or-later */
/* confine.h - A process gives up what it could do */
#ifndef PASSTPY_PY_CONFINE_H
#define PASSTPY_PY_CONFINE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Functions that module.c adds to passtpy._native; ends with an empty entry */
extern PyMethodDef passtpy_confine_methods[];

#endif /* PASSTPY_PY_CONFINE_H */
