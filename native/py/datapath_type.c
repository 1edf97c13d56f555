/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath_type.c - The type Datapath: one object owns one datapath
 *
 * The GIL is released in exactly one place, around datapath_turn(). While it
 * is, other threads find the object busy.
 */

#include "py/datapath_type.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/sys.h"
#include "link/backends.h"
#include "py/datapath_vhost.h"

#define MTU_MIN	  68 /* RFC 791: what every link must carry */
#define MTU_MAX	  65535
#define QUEUE_MAX 1000000 /* frames: beyond any tx queue length */

static const struct module_state *state_of(const struct py_datapath *self)
{
	return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

/* Creation */

static bool config_bytes(PyObject *value, const char *what, void *dst,
			 size_t len)
{
	return !value || value == Py_None || parse_bytes(value, what, dst, len);
}

static bool config_range(const char *what, long long value, long long min,
			 long long max)
{
	if (value >= min && value <= max)
		return true;
	PyErr_Format(PyExc_ValueError, "%s: not within %lld to %lld", what, min,
		     max);
	return false;
}

static bool config_secret(PyObject *secret, struct datapath_config *g)
{
	ssize_t n;

	if (secret && secret != Py_None)
		return parse_bytes(secret, "secret", g->secret,
				   sizeof(g->secret));
	n = sys_getrandom(g->secret, sizeof(g->secret), 0);
	if (n == (ssize_t)sizeof(g->secret))
		return true;
	raise_errno(n < 0 ? errno : EIO);
	return false;
}

static bool config_backend(const char *name, struct datapath_config *g)
{
	g->backend = tap_backend(name);
	if (!g->backend)
		PyErr_Format(PyExc_ValueError, "backend: no '%s'", name);
	return g->backend;
}

static bool config_parse(PyObject *args, PyObject *kwargs,
			 struct datapath_config *g)
{
	static char *names[] = { "tap_fd",    "mtu",	      "our_mac",
				 "guest_mac", "max_flows",    "vnet_hdr",
				 "offloads",  "queue_frames", "virtual_time",
				 "secret",    "backend",      NULL };
	PyObject *our_mac = NULL, *guest_mac = NULL, *secret = NULL;
	const char *backend = NULL;
	long long max_flows = 131072, queue_frames = 500;
	int mtu = -1, vnet = 1, virtual_time = 0;
	unsigned offloads = 0;

	if (!PyArg_ParseTupleAndKeywords(
		    args, kwargs, "i|$iOOLpILpOz", names, &g->tap_fd, &mtu,
		    &our_mac, &guest_mac, &max_flows, &vnet, &offloads,
		    &queue_frames, &virtual_time, &secret, &backend) ||
	    !config_backend(backend, g))
		return false;
	if (mtu < 0 || !our_mac) {
		PyErr_SetString(PyExc_TypeError,
				"Datapath() needs mtu= and our_mac=");
		return false;
	}
	if (!config_range("mtu", mtu, MTU_MIN, MTU_MAX) ||
	    !config_range("max_flows", max_flows, 1, FLOW_TABLE_MAX) ||
	    !config_range("queue_frames", queue_frames, 1, QUEUE_MAX) ||
	    !parse_bytes(our_mac, "our_mac", g->our_mac, ETH_ALEN_) ||
	    !config_bytes(guest_mac, "guest_mac", g->guest_mac, ETH_ALEN_) ||
	    !config_secret(secret, g))
		return false;
	g->mtu = (uint32_t)mtu;
	g->max_flows = (uint32_t)max_flows;
	g->queue_frames = (uint32_t)queue_frames;
	g->vnet = vnet;
	g->offloads = offloads;
	g->virtual_time = virtual_time;
	return true;
}

static PyObject *py_datapath_new(PyTypeObject *type, PyObject *args,
				 PyObject *kwargs)
{
	struct datapath_config config = { 0 };
	struct py_datapath *self;
	int err;

	if (!config_parse(args, kwargs, &config))
		return NULL;
	self = (struct py_datapath *)PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	err = datapath_create(&self->dp, &config);
	if (err) {
		Py_DECREF(self);
		return raise_errno(-err);
	}
	return (PyObject *)self;
}

static void py_datapath_dealloc(struct py_datapath *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);
	freefunc release = PyType_GetSlot(type, Py_tp_free);

	if (self->dp)
		datapath_destroy(self->dp);
	release(self);
	Py_DECREF(type);
}

static PyObject *py_close(struct py_datapath *self, PyObject *unused)
{
	(void)unused;
	if (self->dp && !py_datapath_get(self))
		return NULL;
	if (self->dp)
		datapath_destroy(self->dp);
	self->dp = NULL;
	Py_RETURN_NONE;
}

static PyObject *py_fileno(struct py_datapath *self, PyObject *unused)
{
	struct datapath *dp = py_datapath_get(self);

	(void)unused;
	return dp ? PyLong_FromLong(dp->ctx.epoll.fd[EPOLL_MAIN]) : NULL;
}

/* Turn */

enum { TURN_NOW, TURN_SLICE, TURN_SPIN, TURN_ARGS };

static const char *const turn_names[TURN_ARGS] = { "now", "slice_us",
						   "spin_us" };

/* turn_bind() - Sort arguments by name, the vectorcall way */
static bool turn_bind(PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
		      PyObject **bound)
{
	Py_ssize_t n_kw = kwnames ? PyTuple_Size(kwnames) : 0;

	if (n > TURN_ARGS) {
		PyErr_SetString(PyExc_TypeError, "turn() takes 3 arguments");
		return false;
	}
	for (Py_ssize_t i = 0; i < n; i++)
		bound[i] = args[i];
	for (Py_ssize_t i = 0; i < n_kw; i++) {
		PyObject *name = PyTuple_GetItem(kwnames, i);
		int k = 0;

		while (k < TURN_ARGS &&
		       PyUnicode_CompareWithASCIIString(name, turn_names[k]))
			k++;
		if (k == TURN_ARGS || bound[k]) {
			PyErr_Format(PyExc_TypeError,
				     "turn() got an unexpected argument '%U'",
				     name);
			return false;
		}
		bound[k] = args[n + i];
	}
	return true;
}

static bool turn_limits(PyObject *const *bound, struct turn_limits *limits)
{
	uint64_t now = 0, slice_us = 1000, spin_us = 60;

	if (bound[TURN_NOW] && bound[TURN_NOW] != Py_None &&
	    !parse_uint(bound[TURN_NOW], "now", INT64_MAX, &now))
		return false;
	if (bound[TURN_SLICE] &&
	    !parse_uint(bound[TURN_SLICE], "slice_us", UINT32_MAX, &slice_us))
		return false;
	if (bound[TURN_SPIN] &&
	    !parse_uint(bound[TURN_SPIN], "spin_us", UINT32_MAX, &spin_us))
		return false;
	limits->now = now;
	limits->slice = slice_us * NSEC_PER_USEC;
	limits->spin = spin_us * NSEC_PER_USEC;
	return true;
}

/* list_take() - Append an item whose reference is ours */
static bool list_take(PyObject *list, PyObject *item)
{
	int rc;

	if (!item)
		return false;
	rc = PyList_Append(list, item);
	Py_DECREF(item);
	return !rc;
}

static bool collect_punts(struct py_datapath *self, PyObject *list)
{
	const struct border_punts *punts = &self->dp->punts;

	for (uint32_t i = 0; i < punts->count; i++) {
		if (!list_take(list,
			       record_from_punt(state_of(self), punts, i)))
			return false;
	}
	return true;
}

static bool collect_misses(struct py_datapath *self, PyObject *list)
{
	struct stage *stage = &self->dp->ctx.stage;
	struct miss *m;

	for (unsigned n = 0; n < BORDER_MISSES; n++) {
		m = stage_take_untold(stage);
		if (!m)
			break;
		if (!list_take(list,
			       record_from_miss(state_of(self), stage, m)))
			return false;
	}
	return true;
}

static bool collect_said(struct py_datapath *self, PyObject *list)
{
	struct said said;
	size_t bytes = 0;

	for (unsigned n = 0; n < BORDER_SAID && bytes < BORDER_SAID_BUF; n++) {
		if (!datapath_said(self->dp, &said))
			break;
		if (!list_take(list, record_from_said(state_of(self), &said)))
			return false;
		bytes += said.data.iov_len;
	}
	return true;
}

/* collect() - Records of this turn; most turns have none, and cost nothing */
static PyObject *collect(struct py_datapath *self)
{
	const struct stage *stage = &self->dp->ctx.stage;
	int gone = datapath_take_gone(self->dp);
	PyObject *list;

	if (!gone && !self->dp->punts.count &&
	    !self->dp->ctx.inspected.n_news &&
	    stage->untold_head == stage->untold_tail)
		return PyTuple_New(0);
	list = PyList_New(0);
	if (!list)
		return NULL;
	if (!collect_punts(self, list) || !collect_said(self, list) ||
	    !collect_misses(self, list))
		goto fail;
	if (gone && !list_take(list, record_from_errno(state_of(self), gone)))
		goto fail;
	return list;

fail:
	Py_DECREF(list);
	return NULL;
}

static PyObject *py_turn(struct py_datapath *self, PyObject *const *args,
			 Py_ssize_t n, PyObject *kwnames)
{
	struct datapath *dp = py_datapath_get(self);
	PyObject *bound[TURN_ARGS] = { NULL };
	struct turn_limits limits;

	if (!dp || !turn_bind(args, n, kwnames, bound) ||
	    !turn_limits(bound, &limits))
		return NULL;
	if (!limits.now && dp->ctx.timers.fd < 0) {
		PyErr_SetString(PyExc_ValueError,
				"virtual time: turn() needs now=");
		return NULL;
	}
	self->busy = true;
	Py_BEGIN_ALLOW_THREADS(void)
		datapath_turn(dp, &limits); /* dp->gone tells the same */
	Py_END_ALLOW_THREADS self->busy = false;
	return collect(self);
}

/* open_fd() - The optional third argument of open(), by place or by name */
static bool open_fd(PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
		    int *ret_fd)
{
	Py_ssize_t n_kw = kwnames ? PyTuple_Size(kwnames) : 0;

	*ret_fd = -1;
	if (n < 2 || n + n_kw > 3 ||
	    (n_kw && PyUnicode_CompareWithASCIIString(
			     PyTuple_GetItem(kwnames, 0), "fd"))) {
		PyErr_SetString(PyExc_TypeError,
				"open() takes miss_id, verdict, and fd");
		return false;
	}
	if (n + n_kw == 3)
		*ret_fd = (int)PyLong_AsLong(args[2]);
	return *ret_fd != -1 || !PyErr_Occurred();
}

/* open_with() - The flow's id, or None where a verdict said no */
static PyObject *open_with(struct datapath *dp, uint64_t miss_id,
			   const struct verdict *v, int fd,
			   const struct relay *relay)
{
	uint64_t flow_id;
	int err = datapath_open(dp, miss_id, v, fd, relay, &flow_id);

	if (err)
		return raise_errno(-err);
	if (!flow_id)
		Py_RETURN_NONE;
	return PyLong_FromUnsignedLongLong(flow_id);
}

static PyObject *py_open(struct py_datapath *self, PyObject *const *args,
			 Py_ssize_t n, PyObject *kwnames)
{
	struct datapath *dp = py_datapath_get(self);
	struct verdict verdict;
	uint64_t miss_id;
	int fd;

	if (!dp || !open_fd(args, n, kwnames, &fd) ||
	    !parse_uint(args[0], "miss_id", UINT64_MAX, &miss_id) ||
	    !parse_verdict(args[1], &verdict))
		return NULL;
	return open_with(dp, miss_id, &verdict, fd, NULL);
}

static PyObject *py_open_relayed(struct py_datapath *self, PyObject *args,
				 PyObject *kwargs)
{
	static char *names[] = { "miss_id", "verdict", "fd",
				 "control", "head",    NULL };
	struct datapath *dp = py_datapath_get(self);
	struct relay relay = { 0 };
	struct verdict verdict;
	PyObject *id, *tuple;
	const char *head;
	Py_ssize_t len;
	uint64_t miss_id;
	int fd;

	if (!dp ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "OO$iiy#", names, &id,
					 &tuple, &fd, &relay.control, &head,
					 &len) ||
	    !parse_uint(id, "miss_id", UINT64_MAX, &miss_id) ||
	    !parse_verdict(tuple, &verdict))
		return NULL;
	if (fd < 0 || relay.control < 0 || len > RELAY_HEAD_MAX) {
		PyErr_SetString(
			PyExc_ValueError,
			"open_relayed(): no descriptor, or a long head");
		return NULL;
	}
	relay.len = (uint16_t)len;
	memcpy(relay.head, head, (size_t)len);
	return open_with(dp, miss_id, &verdict, fd, &relay);
}

static PyMethodDef methods[] = {
	{ "close", METHOD(py_close), METH_NOARGS,
	  SIGNATURE("close($self, /)") "Close every socket and the tap" },
	{ "fileno", METHOD(py_fileno), METH_NOARGS,
	  SIGNATURE(
		  "fileno($self, /)") "The epoll file descriptor: readable when turn() has work" },
	{ "turn", METHOD(py_turn), METH_FASTCALL | METH_KEYWORDS,
	  SIGNATURE(
		  "turn($self, now=None, slice_us=1000, spin_us=60)") "Run once, within bounds; return what Python must see" },
	{ "open", METHOD(py_open), METH_FASTCALL | METH_KEYWORDS,
	  SIGNATURE(
		  "open($self, miss_id, verdict, /, fd=-1)") "Carry out a verdict; return flow_id, or None: it said no" },
	{ "open_relayed", METHOD(py_open_relayed), METH_KW,
	  SIGNATURE(
		  "open_relayed($self, miss_id, verdict, *, fd, control, head)") "Open a flow of datagrams that leaves through a SOCKS5 proxy" },
	{ "close_flow", METHOD(py_close_flow), METH_KW,
	  SIGNATURE(
		  "close_flow($self, flow_id, why)") "Reset both ends of an open flow" },
	{ "verdict", METHOD(py_verdict), METH_KW,
	  SIGNATURE(
		  "verdict($self, flow_id, *, rule, generation, admit=False)") "Put an open flow under another rule" },
	{ "limit", METHOD(py_limit), METH_KW,
	  SIGNATURE(
		  "limit($self, rule, *, rate_in=0, rate_out=0, total_in=0, total_out=0, flows=0, new_flows=0)") "Limit the flows of a rule, together; of rule 0: all" },
	{ "unlimit", METHOD(py_unlimit), METH_O,
	  SIGNATURE(
		  "unlimit($self, rule, /)") "Let a rule's flows go without limits" },
	{ "limits", METHOD(py_limits), METH_NOARGS,
	  SIGNATURE(
		  "limits($self, /)") "What was counted, by the rules that have limits" },
	{ "adopt", METHOD(py_adopt), METH_KW,
	  SIGNATURE(
		  "adopt($self, flow_id, fd, *, forget=False)") "Go on with another connected socket" },
	{ "connect", METHOD(py_connect), METH_VARARGS,
	  SIGNATURE(
		  "connect($self, flow_id, eaddr, eport, /)") "Let a flow that is inspected go on" },
	{ "attach", METHOD(py_attach), METH_O,
	  SIGNATURE(
		  "attach($self, fd, /)") "A guest came; its socket is taken over" },
	{ "detach", METHOD(py_detach), METH_NOARGS,
	  SIGNATURE(
		  "detach($self, /)") "Let go of the guest; flows wait for the next one" },
	DATAPATH_VHOST_METHODS,
	{ "listen", METHOD(py_listen), METH_KW,
	  SIGNATURE(
		  "listen($self, fd, proto, listener, pif=1)") "Take over a bound socket" },
	{ "listen_nameless", METHOD(py_listen_nameless), METH_KW,
	  SIGNATURE(
		  "listen_nameless($self, fd, listener, addr, "
		  "port)") "Take over a UNIX socket, whose clients get this name" },
	{ "unlisten", METHOD(py_unlisten), METH_O,
	  SIGNATURE("unlisten($self, listener, /)") "Close a listening socket" },
	{ "renumber", METHOD(py_renumber), METH_VARARGS,
	  SIGNATURE(
		  "renumber($self, old, new, /)") "Let a listening socket have another number" },
	{ "inject", METHOD(py_inject), METH_O,
	  SIGNATURE(
		  "inject($self, frame, /)") "Put an Ethernet frame on the tap" },
	{ "events", METHOD(py_events), METH_KW,
	  SIGNATURE("events($self, limit=256)") "Drain the log ring" },
	{ "flows", METHOD(py_flows), METH_KW,
	  SIGNATURE(
		  "flows($self, cursor=0, limit=256)") "A page of packed flows, and where to go on" },
	{ "counters", METHOD(py_counters), METH_NOARGS,
	  SIGNATURE("counters($self, /)") "All counters by name" },
	{ "our_addrs", METHOD(py_our_addrs), METH_KW,
	  SIGNATURE(
		  "our_addrs($self, v4, v6)") "Who tells the guest of what we refuse" },
	{ "outbound_if", METHOD(py_outbound_if), METH_KW,
	  SIGNATURE(
		  "outbound_if($self, v4, v6)") "Bind outbound sockets to interfaces" },
	{ "pcap_run", METHOD(py_pcap_run), METH_NOARGS,
	  SIGNATURE(
		  "pcap_run($self, /)") "Start the thread that writes the capture" },
	{ "pcap", METHOD(py_pcap), METH_O,
	  SIGNATURE(
		  "pcap($self, fd, /)") "Capture to a file, which is taken over; -1 stops" },
	{ "impair", METHOD(py_impair), METH_KW,
	  SIGNATURE(
		  "impair($self, from_guest, to_guest, seed=1)") "Make the link to the guest worse than it is" },
	{ "ping_raw", METHOD(py_ping_raw), METH_O,
	  SIGNATURE(
		  "ping_raw($self, fd, /)") "Take over a raw socket, to be lent to echo" },
	{ "capture_start", METHOD(py_capture_start), METH_KW,
	  SIGNATURE(
		  "capture_start($self, filter, sides, snaplen)") "Begin a capture; return its number" },
	{ "capture_take", METHOD(py_capture_take), METH_KW,
	  SIGNATURE("capture_take($self, number, room, packets, "
		    "last=False)") "Take packets as blocks of a pcapng file" },
	{ "capture_counts", METHOD(py_capture_counts), METH_O,
	  SIGNATURE(
		  "capture_counts($self, number, /)") "Packets seen and dropped at the tap, at sockets; bytes that wait" },
	{ "capture_finish", METHOD(py_capture_finish), METH_O,
	  SIGNATURE(
		  "capture_finish($self, number, /)") "Take no more packets in; the rest may be taken out" },
	{ "capture_stop", METHOD(py_capture_stop), METH_O,
	  SIGNATURE("capture_stop($self, number, /)") "End a capture" },
#ifdef PASSTPY_FAULTS
	{ "faults", METHOD(py_faults), METH_KW,
	  SIGNATURE(
		  "faults($self, *, drop_ppm=0, reorder_ppm=0, seed=1)") "Mistreat frames" },
#endif
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
	{ Py_tp_doc,
	  SIGNATURE(
		  "Datapath(tap_fd, *, mtu, our_mac, guest_mac=None, "
		  "max_flows=131072, vnet_hdr=True, offloads=0, "
		  "queue_frames=500, virtual_time=False, secret=None, "
		  "backend=None)") "The C half: tap, flow table and every flow's sockets" },
	{ Py_tp_new, py_datapath_new },
	{ Py_tp_dealloc, py_datapath_dealloc },
	{ Py_tp_methods, methods },
	{ Py_tp_getset, py_datapath_getset },
	{ 0, NULL },
};

PyType_Spec datapath_spec = {
	.name = "passtpy._native.Datapath",
	.basicsize = sizeof(struct py_datapath),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = slots,
};
