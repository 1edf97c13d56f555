/* SPDX-License-Identifier: GPL-2.0-or-later */
/* confine.c - A process gives up what it could do
 *
 * System calls by seccomp, files by another root. As thin as the kernel allows:
 * what is forbidden, and why, stays in Python (isolation/).
 */

#include "py/confine.h"

#include "py/module.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

/* All threads at once, and whoever is forked from now on */
static PyObject *confine_seccomp(PyObject *self, PyObject *arg)
{
	struct sock_fprog program;
	char *bytes;
	Py_ssize_t len;
	long rc;

	(void)self;
	if (PyBytes_AsStringAndSize(arg, &bytes, &len))
		return NULL;

	if (!len || len % (Py_ssize_t)sizeof(struct sock_filter) ||
	    len > BPF_MAXINSNS * (Py_ssize_t)sizeof(struct sock_filter)) {
		PyErr_SetString(PyExc_ValueError, "not a BPF program");
		return NULL;
	}
	program.len =
		(unsigned short)(len / (Py_ssize_t)sizeof(struct sock_filter));
	program.filter = (struct sock_filter *)(void *)bytes;
	rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		     SECCOMP_FILTER_FLAG_TSYNC, &program);
	if (rc > 0) { /* a thread that has another filter */
		errno = EBUSY;
		rc = -1;
	}
	if (rc < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyObject *confine_pivot_root(PyObject *self, PyObject *args)
{
	const char *new_root, *put_old;

	(void)self;
	if (!PyArg_ParseTuple(args, "ss:pivot_root", &new_root, &put_old))
		return NULL;
	if (syscall(SYS_pivot_root, new_root, put_old))
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

PyMethodDef passtpy_confine_methods[] = {
	{ "seccomp", confine_seccomp, METH_O,
	  SIGNATURE(
		  "seccomp($module, program, /)") "Filter the system calls of all threads" },
	{ "pivot_root", confine_pivot_root, METH_VARARGS,
	  SIGNATURE(
		  "pivot_root($module, new_root, put_old, /)") "pivot_root(2)" },
	{ NULL, NULL, 0, NULL },
};
