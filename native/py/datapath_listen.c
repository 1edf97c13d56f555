/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_listen.c - Datapath methods that take and give up listening sockets */

#include <limits.h>
#include <netinet/in.h>

#include "py/datapath_type.h"

PyObject *py_listen(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "fd", "proto", "listener", "pif", NULL };
	struct datapath *dp = py_datapath_get(self);
	int fd, proto, pif = PIF_HOST, err;
	long long number;

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "iiL|i", names,
						&fd, &proto, &number, &pif))
		return NULL;
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP) {
		PyErr_SetString(PyExc_ValueError, "proto: neither TCP nor UDP");
		return NULL;
	}
	if (pif != PIF_HOST && pif != PIF_SPLICE) {
		PyErr_SetString(PyExc_ValueError,
				"pif: neither HOST nor SPLICE");
		return NULL;
	}
	if (number < 0 || number >= LISTEN_MAX) {
		PyErr_Format(PyExc_ValueError, "listener: not within 0 to %d",
			     LISTEN_MAX - 1);
		return NULL;
	}
	err = listener_add(&dp->ctx.listeners, &dp->ctx.epoll, fd,
			   (uint8_t)proto, (enum pif)pif, (uint32_t)number);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_listen_nameless(struct py_datapath *self, PyObject *args,
			     PyObject *kwargs)
{
	static char *names[] = { "fd", "listener", "addr", "port", NULL };
	struct datapath *dp = py_datapath_get(self);
	uint64_t fd, number, port;
	union inany name;
	PyObject *value[4];
	int err;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO", names, &value[0],
					 &value[1], &value[2], &value[3]) ||
	    !parse_uint(value[0], "fd", INT_MAX, &fd) ||
	    !parse_uint(value[1], "listener", LISTEN_MAX - 1, &number) ||
	    !parse_bytes(value[2], "addr", &name, sizeof(name)) ||
	    !parse_uint(value[3], "port", UINT16_MAX, &port))
		return NULL;
	err = listener_add_nameless(&dp->ctx.listeners, &dp->ctx.epoll, (int)fd,
				    (uint32_t)number, &name, (uint16_t)port);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_unlisten(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t i;
	int err;

	if (!dp || !parse_uint(number, "listener", LISTEN_MAX - 1, &i))
		return NULL;
	err = listener_del(&dp->ctx.listeners, &dp->ctx.epoll, (uint32_t)i);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_renumber(struct py_datapath *self, PyObject *args)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *from, *to;
	uint64_t old, number;
	int err;

	if (!dp || !PyArg_ParseTuple(args, "OO", &from, &to) ||
	    !parse_uint(from, "old", LISTEN_MAX - 1, &old) ||
	    !parse_uint(to, "new", LISTEN_MAX - 1, &number))
		return NULL;
	err = listener_renumber(&dp->ctx.listeners, &dp->ctx.epoll,
				(uint32_t)old, (uint32_t)number);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}
