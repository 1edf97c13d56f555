/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_control.c - Datapath methods beside the road of a flow */

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <string.h>

#include "link/tap_faults.h"
#include "link/impair.h"
#include "proto/ping_raw.h"
#include "py/datapath_type.h"

#define LIST_MAX      4096 /* flows of one page: a fraction of a ms */
#define LOG_LEVEL_MAX 3

static const struct module_state *state_of(const struct py_datapath *self)
{
	return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

/* Guests */

PyObject *py_attach(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t fd;
	int err;

	if (!dp || !parse_uint(number, "fd", INT_MAX, &fd))
		return NULL;
	err = datapath_attach(dp, (int)fd);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_detach(struct py_datapath *self, PyObject *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	if (!dp)
		return NULL;
	datapath_detach(dp);
	Py_RETURN_NONE;
}

PyObject *py_inject(struct py_datapath *self, PyObject *frame)
{
	struct datapath *dp = py_datapath_get(self);
	Py_buffer buffer;
	int err;

	if (!dp || PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE))
		return NULL;
	if (buffer.len < ETH_HLEN_ || buffer.len > TAP_FRAME_MAX) {
		PyBuffer_Release(&buffer);
		PyErr_SetString(PyExc_ValueError, "frame: impossible length");
		return NULL;
	}
	err = tap_inject(&dp->ctx.tap, buffer.buf, (uint32_t)buffer.len);
	PyBuffer_Release(&buffer);
	/* A guest that is full or away: lost, as on any link, and counted */
	if (err && err != -EAGAIN && err != -ENOTCONN)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

/* Open flows */

PyObject *py_close_flow(struct py_datapath *self, PyObject *args,
			PyObject *kwargs)
{
	static char *names[] = { "flow_id", "why", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *number;
	uint64_t id;
	int why, err;

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "Oi", names,
						&number, &why))
		return NULL;
	if (why != WHY_ASKED && why != WHY_POLICY) {
		PyErr_SetString(PyExc_ValueError,
				"why: neither ASKED nor POLICY");
		return NULL;
	}
	if (!parse_uint(number, "flow_id", UINT64_MAX, &id))
		return NULL;
	err = datapath_close_flow(dp, id, (enum flow_why)why);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_verdict(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "flow_id", "rule", "generation", "admit",
				 NULL };
	struct datapath *dp = py_datapath_get(self);
	uint64_t id, rule, generation;
	PyObject *number[3] = { NULL };
	int admit = 0, err;

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOp", names,
						&number[0], &number[1],
						&number[2], &admit))
		return NULL;
	if (!number[1] || !number[2]) {
		PyErr_SetString(PyExc_TypeError,
				"verdict(): rule and generation are missing");
		return NULL;
	}
	if (!parse_uint(number[0], "flow_id", UINT64_MAX, &id) ||
	    !parse_uint(number[1], "rule", UINT32_MAX, &rule) ||
	    !parse_uint(number[2], "generation", UINT32_MAX, &generation))
		return NULL;
	err = datapath_set_rule(dp, id, (uint32_t)rule, (uint32_t)generation,
				admit);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_adopt(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "flow_id", "fd", "forget", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *number[2];
	int forget = 0, err;
	uint64_t id, fd;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$p", names,
					 &number[0], &number[1], &forget) ||
	    !parse_uint(number[0], "flow_id", UINT64_MAX, &id) ||
	    !parse_uint(number[1], "fd", INT_MAX, &fd))
		return NULL;
	err = datapath_adopt(dp, id, (int)fd, forget);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_connect(struct py_datapath *self, PyObject *args)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *item[3];
	union inany eaddr;
	uint64_t id, port;
	int err;

	if (!dp ||
	    !PyArg_ParseTuple(args, "OOO", &item[0], &item[1], &item[2]) ||
	    !parse_uint(item[0], "flow_id", UINT64_MAX, &id) ||
	    !parse_bytes(item[1], "eaddr", &eaddr, sizeof(eaddr)) ||
	    !parse_uint(item[2], "eport", UINT16_MAX, &port))
		return NULL;
	err = datapath_connect(dp, id, &eaddr, (uint16_t)port);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

/* What the datapath tells about itself */

PyObject *py_events(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "limit", NULL };
	struct datapath *dp = py_datapath_get(self);
	struct log_record event;
	int limit = 256;
	PyObject *list;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "|i", names, &limit))
		return NULL;
	list = PyList_New(0);
	while (list && limit-- > 0 && flow_log_get(&dp->ctx.log, &event)) {
		PyObject *item = record_from_event(state_of(self), &event);

		if (!item || PyList_Append(list, item))
			Py_CLEAR(list);
		Py_XDECREF(item);
	}
	return list;
}

PyObject *py_flows(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "cursor", "limit", NULL };
	struct datapath *dp = py_datapath_get(self);
	const Py_ssize_t size = sizeof(struct border_flow);
	unsigned cursor = 0, n;
	PyObject *page;
	int limit = 256;
	uint32_t next;
	void *scratch;

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "|Ii", names,
						&cursor, &limit))
		return NULL;
	if (limit < 1 || limit > LIST_MAX) {
		PyErr_Format(PyExc_ValueError, "limit: not within 1 to %d",
			     LIST_MAX);
		return NULL;
	}
	scratch = PyMem_Malloc((size_t)(limit * size));
	if (!scratch)
		return PyErr_NoMemory();
	next = cursor;
	n = border_flow_page(&dp->ctx.ft, &next, scratch, (unsigned)limit);
	page = PyBytes_FromStringAndSize(scratch, (Py_ssize_t)n * size);
	PyMem_Free(scratch);
	if (!page)
		return NULL;
	return Py_BuildValue("(NI)", page, (unsigned)next);
}

PyObject *py_counters(struct py_datapath *self, PyObject *unused)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *dict = dp ? PyDict_New() : NULL;

	(void)unused;
	for (unsigned i = 0; dict && i < CNT_NUM; i++) {
		PyObject *n = PyLong_FromUnsignedLongLong(dp->ctx.cnt.n[i]);

		if (!n || PyDict_SetItemString(dict, counter_names[i], n))
			Py_CLEAR(dict);
		Py_XDECREF(n);
	}
	return dict;
}

/* Settings */

PyObject *py_our_addrs(struct py_datapath *self, PyObject *args,
		       PyObject *kwargs)
{
	static char *names[] = { "v4", "v6", NULL };
	struct datapath *dp = py_datapath_get(self);
	union inany addr[2];
	PyObject *value[2];

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO", names,
						&value[0], &value[1]))
		return NULL;
	for (unsigned i = 0; i < 2; i++)
		if (!parse_bytes(value[i], names[i], &addr[i], sizeof(addr[i])))
			return NULL;
	memcpy(dp->ctx.our_addr, addr, sizeof(addr));
	Py_RETURN_NONE;
}

PyObject *py_outbound_if(struct py_datapath *self, PyObject *args,
			 PyObject *kwargs)
{
	static char *names[] = { "v4", "v6", NULL };
	struct datapath *dp = py_datapath_get(self);
	PyObject *name[2], *result = NULL;

	/* A name of the kernel is bytes, which Python may show as surrogates */
	if (!dp || !PyArg_ParseTupleAndKeywords(
			   args, kwargs, "O&O&", names, PyUnicode_FSConverter,
			   &name[0], PyUnicode_FSConverter, &name[1]))
		return NULL;
	for (unsigned i = 0; i < 2; i++) {
		if ((size_t)PyBytes_Size(name[i]) >=
		    sizeof(dp->ctx.outbound_if[i])) {
			PyErr_SetString(PyExc_ValueError,
					"interface name: too long");
			goto out;
		}
	}
	for (unsigned i = 0; i < 2; i++)
		strcpy(dp->ctx.outbound_if[i], PyBytes_AsString(name[i]));
	result = Py_NewRef(Py_None);
out:
	Py_DECREF(name[0]);
	Py_DECREF(name[1]);
	return result;
}

PyObject *py_pcap(struct py_datapath *self, PyObject *fd)
{
	struct datapath *dp = py_datapath_get(self);
	long number;
	int err;

	if (!dp)
		return NULL;
	number = PyLong_AsLong(fd);
	if (number == -1 && PyErr_Occurred())
		return NULL;
	if (number < -1 || number > INT_MAX) {
		PyErr_SetString(PyExc_ValueError, "fd: no file descriptor");
		return NULL;
	}
	if (number == -1) {
		pcap_stop(&dp->ctx.tap.pcap);
		Py_RETURN_NONE;
	}
	err = pcap_start(&dp->ctx.tap.pcap, (int)number);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_pcap_run(struct py_datapath *self, PyObject *unused)
{
	struct datapath *dp = py_datapath_get(self);
	int err;

	(void)unused;
	if (!dp)
		return NULL;
	err = pcap_run(&dp->ctx.tap.pcap);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

PyObject *py_ping_raw(struct py_datapath *self, PyObject *number)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t fd;
	int err;

	if (!dp || !parse_uint(number, "fd", INT_MAX, &fd))
		return NULL;
	err = ping_raw_add(&dp->ctx, (int)fd);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

#ifdef PASSTPY_FAULTS
PyObject *py_faults(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "drop_ppm", "reorder_ppm", "seed", NULL };
	struct datapath *dp = py_datapath_get(self);
	unsigned drop_ppm = 0, reorder_ppm = 0;
	unsigned long long seed = 1;

	if (!dp || !PyArg_ParseTupleAndKeywords(args, kwargs, "|$IIK", names,
						&drop_ppm, &reorder_ppm, &seed))
		return NULL;
	tap_faults_set(&dp->ctx.tap, drop_ppm, reorder_ppm, seed);
	Py_RETURN_NONE;
}
#endif

/* A worse link */

/* impair_link() - (delay_ns, jitter_ns, loss_ppm, reorder) */
static bool impair_link(PyObject *tuple, const char *what,
			struct impair_link *link)
{
	unsigned long long delay, jitter;
	unsigned loss_ppm;
	int reorder;

	if (!PyTuple_Check(tuple)) {
		PyErr_Format(PyExc_TypeError, "%s: tuple expected", what);
		return false;
	}
	if (!PyArg_ParseTuple(tuple, "KKIp", &delay, &jitter, &loss_ppm,
			      &reorder))
		return false;
	if (delay > IMPAIR_DELAY_MAX || jitter > delay ||
	    loss_ppm > IMPAIR_PPM) {
		PyErr_Format(PyExc_ValueError, "%s: no such link", what);
		return false;
	}
	*link = (struct impair_link){ .delay = delay,
				      .jitter = jitter,
				      .loss_ppm = loss_ppm,
				      .reorder = reorder };
	return true;
}

PyObject *py_impair(struct py_datapath *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "from_guest", "to_guest", "seed", NULL };
	struct datapath *dp = py_datapath_get(self);
	struct impair_link links[IMPAIR_WAYS];
	PyObject *from, *to;
	unsigned long long seed = 1;
	int err;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|K", names, &from,
					 &to, &seed) ||
	    !impair_link(from, names[0], &links[IMPAIR_FROM_GUEST]) ||
	    !impair_link(to, names[1], &links[IMPAIR_TO_GUEST]))
		return NULL;
	err = impair_set(&dp->ctx.tap, links, seed, &dp->ctx.now);
	if (err)
		return raise_errno(-err);
	Py_RETURN_NONE;
}

/* Attributes */

static PyObject *get_closed(struct py_datapath *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!self->dp);
}

static PyObject *get_guest_mac(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	if (!dp)
		return NULL;
	return PyBytes_FromStringAndSize((const char *)dp->ctx.tap.guest_mac,
					 ETH_ALEN_);
}

/* no_delete() - del datapath.attribute is not offered */
static bool no_delete(PyObject *value)
{
	if (!value)
		PyErr_SetString(PyExc_AttributeError, "cannot be deleted");
	return value;
}

static int set_guest_mac(struct py_datapath *self, PyObject *value,
			 void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	if (!dp || !no_delete(value) ||
	    !parse_bytes(value, "guest_mac", dp->ctx.tap.guest_mac, ETH_ALEN_))
		return -1;
	return 0;
}

static PyObject *get_log_level(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyLong_FromLong(dp->ctx.log.level) : NULL;
}

static int set_log_level(struct py_datapath *self, PyObject *value,
			 void *unused)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t level;

	(void)unused;
	if (!dp || !no_delete(value) ||
	    !parse_uint(value, "log_level", LOG_LEVEL_MAX, &level))
		return -1;
	dp->ctx.log.level = (uint8_t)level;
	return 0;
}

/* set_bool() - 0; -1 and an exception if @value has no truth, or is to go */
static int set_bool(bool *to, PyObject *value)
{
	int on = no_delete(value) ? PyObject_IsTrue(value) : -1;

	if (on < 0)
		return -1;
	*to = on;
	return 0;
}

static PyObject *get_watched(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyBool_FromLong(dp->ctx.log.watched) : NULL;
}

static int set_watched(struct py_datapath *self, PyObject *value, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? set_bool(&dp->ctx.log.watched, value) : -1;
}

static PyObject *get_scope_id(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyLong_FromUnsignedLong(dp->ctx.scope_id) : NULL;
}

static int set_scope_id(struct py_datapath *self, PyObject *value, void *unused)
{
	struct datapath *dp = py_datapath_get(self);
	uint64_t scope_id;

	(void)unused;
	if (!dp || !no_delete(value) ||
	    !parse_uint(value, "scope_id", UINT32_MAX, &scope_id))
		return -1;
	dp->ctx.scope_id = (uint32_t)scope_id;
	return 0;
}

static PyObject *get_lift_groups(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyBool_FromLong(dp->lift_groups) : NULL;
}

static int set_lift_groups(struct py_datapath *self, PyObject *value,
			   void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? set_bool(&dp->lift_groups, value) : -1;
}

static PyObject *get_lift_dns(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyBool_FromLong(dp->lift_dns) : NULL;
}

static int set_lift_dns(struct py_datapath *self, PyObject *value, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? set_bool(&dp->lift_dns, value) : -1;
}

static PyObject *get_udp_strict(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyBool_FromLong(dp->ctx.udp_strict) : NULL;
}

static int set_udp_strict(struct py_datapath *self, PyObject *value,
			  void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? set_bool(&dp->ctx.udp_strict, value) : -1;
}

static PyObject *get_pcap_error(struct py_datapath *self, void *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyLong_FromLong(dp->ctx.tap.pcap.error) : NULL;
}

#define GETTER(f) ((getter)(f))
#define SETTER(f) ((setter)(f))

PyGetSetDef py_datapath_getset[] = {
	{ "closed", GETTER(get_closed), NULL, "close() was called", NULL },
	{ "guest_mac", GETTER(get_guest_mac), SETTER(set_guest_mac),
	  "Where frames go; broadcast until the guest was heard", NULL },
	{ "log_level", GETTER(get_log_level), SETTER(set_log_level),
	  "0 off, 1 life of flows, 2 events, 3 packets", NULL },
	{ "watched", GETTER(get_watched), SETTER(set_watched),
	  "Tell of each flow that it began and ended, at any log_level", NULL },
	{ "scope_id", GETTER(get_scope_id), SETTER(set_scope_id),
	  "Host interface of link-local destinations, or 0", NULL },
	{ "lift_groups", GETTER(get_lift_groups), SETTER(set_lift_groups),
	  "Punt datagrams for groups, and reports of membership", NULL },
	{ "lift_dns", GETTER(get_lift_dns), SETTER(set_lift_dns),
	  "Punt UDP to port 53, of whatever server", NULL },
	{ "udp_strict", GETTER(get_udp_strict), SETTER(set_udp_strict),
	  "A remote may answer a UDP port from no port but the one asked",
	  NULL },
	{ "pcap_error", GETTER(get_pcap_error), NULL,
	  "errno of the write that ended the capture, or 0", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};
