/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_vhost.c - Datapath methods for a virtual machine's rings
 *
 * Numbers are checked here for what they are (a descriptor, 64 bits); whether
 * they make sense is for core/ and link/ to say. Descriptors are taken over on
 * success, and stay the caller's when there is an exception.
 */

#include <errno.h>
#include <limits.h>

#include "base/macros.h"
#include "core/gate.h"
#include "link/tap_vhost.h"
#include "py/datapath_vhost.h"

/* done() - None, or the exception of a negative errno; the guest may take frames
 * now, or no longer */
static PyObject *done(struct datapath *dp, int err)
{
	if (err)
		return raise_errno(-err);
	gate_sync(dp);
	Py_RETURN_NONE;
}

PyObject *py_vhost_features(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t features;

	if (!dp || !parse_uint(number, "features", UINT64_MAX, &features))
		return NULL;
	return done(dp, vhost_set_features(&dp->ctx.tap, features));
}

/* parse_fd() - A file descriptor, or -1 */
static bool parse_fd(PyObject *value, const char *what, int *ret_fd)
{
	long fd = PyLong_AsLong(value);

	if (fd == -1 && PyErr_Occurred())
		return false;
	if (fd < -1 || fd > INT_MAX) {
		PyErr_Format(PyExc_ValueError, "%s: no file descriptor", what);
		return false;
	}
	*ret_fd = (int)fd;
	return true;
}

/* parse_region() - From a tuple: guest address, size, user address, offset, fd
 */
static bool parse_region(PyObject *item, struct guest_region *r)
{
	const struct {
		const char *what;
		uint64_t *value;
	} field[] = { { "guest_addr", &r->guest },
		      { "size", &r->size },
		      { "user_addr", &r->user },
		      { "mmap_offset", &r->offset } };
	const Py_ssize_t n = ARRAY_SIZE(field);

	if (!PyTuple_Check(item) || PyTuple_Size(item) != n + 1) {
		PyErr_SetString(PyExc_TypeError,
				"region: tuple of 5 items expected");
		return false;
	}
	for (Py_ssize_t i = 0; i < n; i++)
		if (!parse_uint(PyTuple_GetItem(item, i), field[i].what,
				UINT64_MAX, field[i].value))
			return false;
	return parse_fd(PyTuple_GetItem(item, n), "fd", &r->fd);
}

PyObject *py_vhost_memory(struct py_datapath *self, PyObject *value)
{
	struct datapath *dp = py_datapath_get(self);
	struct guest_region regions[GUEST_MEM_REGIONS];
	PyObject *list;
	Py_ssize_t n;

	if (!dp)
		return NULL;
	list = PySequence_Tuple(value);
	if (!list)
		return NULL;
	n = PyTuple_Size(list);
	if (n > GUEST_MEM_REGIONS) {
		Py_DECREF(list);
		return raise_errno(E2BIG);
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		if (!parse_region(PyTuple_GetItem(list, i), &regions[i])) {
			Py_DECREF(list);
			return NULL;
		}
	}
	Py_DECREF(list);
	return done(dp, vhost_set_memory(&dp->ctx.tap, regions, (unsigned)n));
}

enum {
	RING_INDEX,
	RING_SIZE,
	RING_DESC,
	RING_USED,
	RING_AVAIL,
	RING_BASE,
	RING_NUMBERS,
	RING_KICK = RING_NUMBERS,
	RING_CALL,
	RING_ARGS
};

/* parse_ring() - Numbers and descriptors of vhost_ring() */
static bool parse_ring(PyObject *const *items, char *const *names,
		       uint64_t *number, int *ret_kick_fd, int *ret_call_fd)
{
	static const uint64_t max[RING_NUMBERS] = {
		[RING_INDEX] = UINT_MAX,   [RING_SIZE] = UINT32_MAX,
		[RING_DESC] = UINT64_MAX,  [RING_USED] = UINT64_MAX,
		[RING_AVAIL] = UINT64_MAX, [RING_BASE] = UINT16_MAX,
	};

	for (unsigned i = 0; i < RING_NUMBERS; i++)
		if (!parse_uint(items[i], names[i], max[i], &number[i]))
			return false;
	if (!parse_fd(items[RING_KICK], "kick_fd", ret_kick_fd) ||
	    !parse_fd(items[RING_CALL], "call_fd", ret_call_fd))
		return false;
	if (*ret_kick_fd >= 0)
		return true;
	PyErr_SetString(PyExc_ValueError,
			"kick_fd: rings without kicks are not polled");
	return false;
}

PyObject *py_vhost_ring(struct py_datapath *self, PyObject *args,
			PyObject *kwargs)
{
	static char *names[] = { "index", "size",    "desc",	"used", "avail",
				 "base",  "kick_fd", "call_fd", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *items[RING_ARGS];
	uint64_t number[RING_NUMBERS];
	struct virtq_addr addr;
	int kick_fd, call_fd;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "O$OOOOOOO", names,
					 &items[0], &items[1], &items[2],
					 &items[3], &items[4], &items[5],
					 &items[6], &items[7]) ||
	    !parse_ring(items, names, number, &kick_fd, &call_fd))
		return NULL;
	addr = (struct virtq_addr){ .size = (uint32_t)number[RING_SIZE],
				    .desc = number[RING_DESC],
				    .avail = number[RING_AVAIL],
				    .used = number[RING_USED] };
	return done(dp, vhost_start(&dp->ctx.tap, (unsigned)number[RING_INDEX],
				    &addr, (uint16_t)number[RING_BASE], kick_fd,
				    call_fd));
}

PyObject *py_vhost_call(struct py_datapath *self, PyObject *args)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *items[2];
	uint64_t index;
	int fd;

	if (!dp || !PyArg_ParseTuple(args, "OO", &items[0], &items[1]) ||
	    !parse_uint(items[0], "index", UINT_MAX, &index) ||
	    !parse_fd(items[1], "call_fd", &fd))
		return NULL;
	return done(dp, vhost_set_call(&dp->ctx.tap, (unsigned)index, fd));
}

PyObject *py_vhost_enable(struct py_datapath *self, PyObject *args)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *number;
	uint64_t index;
	int enabled;

	if (!dp || !PyArg_ParseTuple(args, "Op", &number, &enabled) ||
	    !parse_uint(number, "index", UINT_MAX, &index))
		return NULL;
	return done(dp, vhost_enable(&dp->ctx.tap, (unsigned)index, enabled));
}

PyObject *py_vhost_stop(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t index;
	int next;

	if (!dp || !parse_uint(number, "index", UINT_MAX, &index))
		return NULL;
	next = vhost_stop(&dp->ctx.tap, (unsigned)index);
	if (next < 0)
		return raise_errno(-next);
	gate_sync(dp);
	return PyLong_FromLong(next);
}

int vhost_constants_add(PyObject *module)
{
	PyObject *number = PyLong_FromUnsignedLongLong(VHOST_FEATURES);
	int rc = number ? PyModule_AddObjectRef(module, "VHOST_FEATURES",
						number) :
			  -1;

	Py_XDECREF(number);
	return rc;
}
