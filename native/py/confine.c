/* SPDX-License-Identifier: GPL-2.0-or-later */
/* confine.c - A process gives up what it could do
 *
 * System calls by seccomp, files by another root and by Landlock. As thin as the kernel allows:
 * what is forbidden, and why, stays in Python (isolation/).
 */

#include "py/confine.h"

#include "py/module.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From linux/landlock.h, which may be older than the kernel that we run on;
 * the calls have these numbers on every architecture.
 */
#define CALL_LANDLOCK_CREATE_RULESET 444
#define CALL_LANDLOCK_ADD_RULE	     445
#define CALL_LANDLOCK_RESTRICT_SELF  446
#define RULESET_VERSION		     1
#define RULE_PATH_BENEATH	     1

/* What rules are about; an older kernel takes the rest if it is 0 */
struct ruleset {
	uint64_t files;
	uint64_t network;
	uint64_t scopes;
};

struct path_rule {
	uint64_t allowed;
	int32_t folder;
} __attribute__((packed));

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

/* Which Landlock the kernel has; OSError: it has none, or it is switched off */
static PyObject *confine_landlock_version(PyObject *self, PyObject *args)
{
	long rc =
		syscall(CALL_LANDLOCK_CREATE_RULESET, NULL, 0, RULESET_VERSION);

	(void)self;
	(void)args;
	if (rc < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(rc);
}

static PyObject *confine_landlock_rules(PyObject *self, PyObject *args)
{
	unsigned long long files, network, scopes;
	struct ruleset rules;
	long fd;

	(void)self;
	if (!PyArg_ParseTuple(args, "KKK:landlock_rules", &files, &network,
			      &scopes))
		return NULL;
	rules = (struct ruleset){ files, network, scopes };
	fd = syscall(CALL_LANDLOCK_CREATE_RULESET, &rules, sizeof(rules), 0);
	if (fd < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(fd);
}

static PyObject *confine_landlock_allow(PyObject *self, PyObject *args)
{
	unsigned long long allowed;
	struct path_rule rule;
	int rules, folder;

	(void)self;
	if (!PyArg_ParseTuple(args, "iiK:landlock_allow", &rules, &folder,
			      &allowed))
		return NULL;
	rule = (struct path_rule){ .allowed = allowed, .folder = folder };
	if (syscall(CALL_LANDLOCK_ADD_RULE, rules, RULE_PATH_BENEATH, &rule, 0))
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyObject *confine_landlock_restrict(PyObject *self, PyObject *arg)
{
	long rules = PyLong_AsLong(arg);

	(void)self;
	if (rules == -1 && PyErr_Occurred())
		return NULL;
	if (syscall(CALL_LANDLOCK_RESTRICT_SELF, rules, 0))
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
	{ "landlock_version", confine_landlock_version, METH_NOARGS,
	  SIGNATURE(
		  "landlock_version($module, /)") "Which Landlock the kernel has" },
	{ "landlock_rules", confine_landlock_rules, METH_VARARGS,
	  SIGNATURE(
		  "landlock_rules($module, files, network, scopes, /)") "Begin rules that forbid these kinds of access; return a descriptor" },
	{ "landlock_allow", confine_landlock_allow, METH_VARARGS,
	  SIGNATURE(
		  "landlock_allow($module, rules, folder, allowed, /)") "Allow some of it below an open folder" },
	{ "landlock_restrict", confine_landlock_restrict, METH_O,
	  SIGNATURE(
		  "landlock_restrict($module, rules, /)") "Have this thread obey rules" },
	{ NULL, NULL, 0, NULL },
};
