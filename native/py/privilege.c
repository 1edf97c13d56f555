/* SPDX-License-Identifier: GPL-2.0-or-later */
/* privilege.c - System calls that CPython 3.11 lacks
 *
 * Namespaces, capabilities, prctl(), mount(), signalfd() and inotify, each as
 * thin as the kernel allows: an error becomes OSError, policy stays in Python
 * (net/, isolation). Nothing here touches the datapath, and nothing is called
 * once it runs, so the GIL is never released.
 *
 * All of it expects a process with a single thread.
 */

#include "py/privilege.h"

#include "py/module.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITIES 64 /* bits in the kernel's two 32-bit words */

/**
 * none_or_errno() - Make a Python result of a system call's return value
 * @rc:		What the system call returned
 *
 * Return: None, or NULL with OSError set
 */
static PyObject *none_or_errno(long rc)
{
	if (rc < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

/**
 * fd_or_errno() - Make a Python integer of a new file descriptor
 * @fd:		Descriptor, or -1
 *
 * Return: integer, or NULL with OSError set
 */
static PyObject *fd_or_errno(int fd)
{
	if (fd < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(fd);
}

static PyObject *priv_setns(PyObject *self, PyObject *args)
{
	int fd, nstype = 0;

	(void)self;
	if (!PyArg_ParseTuple(args, "i|i:setns", &fd, &nstype))
		return NULL;

	return none_or_errno(setns(fd, nstype));
}

static PyObject *priv_unshare(PyObject *self, PyObject *args)
{
	int flags;

	(void)self;
	if (!PyArg_ParseTuple(args, "i:unshare", &flags))
		return NULL;

	return none_or_errno(unshare(flags));
}

/* clone_namespaces() is fork() with CLONE_NEW* flags. The raw system call skips
 * what the C library does around fork(): harmless with a single thread, apart
 * from its cached thread id, which only abort() of the child would miss.
 */
static PyObject *priv_clone_namespaces(PyObject *self, PyObject *args)
{
	int saved_errno;
	long flags, pid;

	(void)self;
	if (!PyArg_ParseTuple(args, "l:clone_namespaces", &flags))
		return NULL;

	PyOS_BeforeFork();
	pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	saved_errno = errno;
	if (pid == 0)
		PyOS_AfterFork_Child();
	else
		PyOS_AfterFork_Parent();

	if (pid < 0) {
		errno = saved_errno;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyLong_FromLong(pid);
}

/**
 * drop_bounding() - Empty the bounding set
 *
 * Without CAP_SETPCAP the set stays as it is, which no_new_privs() makes
 * harmless: it only matters to programs that gain privileges by execve().
 *
 * Return: 0, or -1 with errno set
 */
static int drop_bounding(void)
{
	unsigned long cap;

	for (cap = 0; cap < CAPABILITIES; cap++) {
		if (!prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			continue;
		if (errno == EINVAL || errno == EPERM)
			break; /* past the last capability, or not allowed */
		return -1;
	}
	return 0;
}

static PyObject *priv_keep_capabilities(PyObject *self, PyObject *args)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = { 0 };
	unsigned long long mask;
	uint32_t keep;
	int i;

	(void)self;
	if (!PyArg_ParseTuple(args, "K:keep_capabilities", &mask))
		return NULL;

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) &&
	    errno != EINVAL)
		return PyErr_SetFromErrno(PyExc_OSError);
	if (drop_bounding())
		return PyErr_SetFromErrno(PyExc_OSError);

	if (syscall(SYS_capget, &head, data))
		return PyErr_SetFromErrno(PyExc_OSError);
	for (i = 0; i < 2; i++) {
		keep = (uint32_t)(mask >> (32 * i));
		data[i].permitted &= keep;
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return none_or_errno(syscall(SYS_capset, &head, data));
}

static PyObject *priv_no_new_privs(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return none_or_errno(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/**
 * prctl_flag() - Call prctl() with one integer from Python
 * @option:	PR_* number
 * @arg:	Python integer or boolean
 *
 * Return: None, or NULL with an exception set
 */
static PyObject *prctl_flag(int option, PyObject *arg)
{
	long value = PyLong_AsLong(arg);

	if (value == -1 && PyErr_Occurred())
		return NULL;

	return none_or_errno(prctl(option, (unsigned long)value, 0, 0, 0));
}

static PyObject *priv_set_pdeathsig(PyObject *self, PyObject *arg)
{
	(void)self;
	return prctl_flag(PR_SET_PDEATHSIG, arg);
}

static PyObject *priv_set_dumpable(PyObject *self, PyObject *arg)
{
	(void)self;
	return prctl_flag(PR_SET_DUMPABLE, arg);
}

static PyObject *priv_mount(PyObject *self, PyObject *args)
{
	const char *source, *target, *fstype, *data = NULL;
	unsigned long flags;

	(void)self;
	if (!PyArg_ParseTuple(args, "zszk|z:mount", &source, &target, &fstype,
			      &flags, &data))
		return NULL;

	return none_or_errno(mount(source, target, fstype, flags, data));
}

static PyObject *priv_umount(PyObject *self, PyObject *arg)
{
	const char *target = PyUnicode_AsUTF8AndSize(arg, NULL);

	(void)self;
	return target ? none_or_errno(umount2(target, MNT_DETACH)) : NULL;
}

static PyObject *priv_signalfd(PyObject *self, PyObject *args)
{
	PyObject *signals, *item;
	Py_ssize_t i, n;
	sigset_t set;
	long sig;

	(void)self;
	if (!PyArg_ParseTuple(args, "O!:signalfd", &PyTuple_Type, &signals))
		return NULL;

	sigemptyset(&set);
	n = PyTuple_Size(signals);
	for (i = 0; i < n; i++) {
		item = PyTuple_GetItem(signals, i);
		sig = PyLong_AsLong(item);
		if (sig == -1 && PyErr_Occurred())
			return NULL;
		if (sigaddset(&set, (int)sig))
			return PyErr_SetFromErrno(PyExc_OSError);
	}
	return fd_or_errno(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/* A user may have few instances (descriptors), so one can watch several paths */
static PyObject *priv_inotify_watch(PyObject *self, PyObject *args)
{
	int fd = -1, made, saved;
	const char *path;
	uint32_t mask;

	(void)self;
	if (!PyArg_ParseTuple(args, "sI|i:inotify_watch", &path, &mask, &fd))
		return NULL;

	made = fd;
	if (fd < 0)
		made = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (made >= 0 && inotify_add_watch(made, path, mask) < 0) {
		saved = errno;
		if (fd < 0)
			close(made);
		errno = saved;
		made = -1;
	}
	return fd_or_errno(made);
}

PyMethodDef passtpy_privilege_methods[] = {
	{ "setns", priv_setns, METH_VARARGS,
	  SIGNATURE(
		  "setns($module, fd, nstype=0, /)") "Join the namespace behind a descriptor" },
	{ "unshare", priv_unshare, METH_VARARGS,
	  SIGNATURE("unshare($module, flags, /)") "Move into new namespaces" },
	{ "clone_namespaces", priv_clone_namespaces, METH_VARARGS,
	  SIGNATURE(
		  "clone_namespaces($module, flags, /)") "Fork into new namespaces; return the PID, or 0" },
	{ "keep_capabilities", priv_keep_capabilities, METH_VARARGS,
	  SIGNATURE(
		  "keep_capabilities($module, mask, /)") "Drop the others, and all beyond execve()" },
	{ "no_new_privs", priv_no_new_privs, METH_NOARGS,
	  SIGNATURE(
		  "no_new_privs($module, /)") "execve() shall never add privileges again" },
	{ "set_pdeathsig", priv_set_pdeathsig, METH_O,
	  SIGNATURE(
		  "set_pdeathsig($module, signal, /)") "Sent to us when our parent ends; 0: none" },
	{ "set_dumpable", priv_set_dumpable, METH_O,
	  SIGNATURE(
		  "set_dumpable($module, flag, /)") "Whether we can be dumped and traced" },
	{ "mount", priv_mount, METH_VARARGS,
	  SIGNATURE("mount($module, source, target, fstype, flags, "
		    "data=None, /)") "mount(2)" },
	{ "umount", priv_umount, METH_O,
	  SIGNATURE("umount($module, target, /)") "umount2(2), MNT_DETACH" },
	{ "signalfd", priv_signalfd, METH_VARARGS,
	  SIGNATURE(
		  "signalfd($module, signals, /)") "A descriptor for a tuple of blocked signals" },
	{ "inotify_watch", priv_inotify_watch, METH_VARARGS,
	  SIGNATURE(
		  "inotify_watch($module, path, mask, fd=-1, /)") "Watch a path; -1: with a new descriptor" },
	{ NULL, NULL, 0, NULL },
};
