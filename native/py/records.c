/* SPDX-License-Identifier: GPL-2.0-or-later */
/* records.c - From C records to the struct sequences that Python sees
 *
 * A record is filled item by item. An item that could not be made is NULL; the
 * record is thrown away then, which struct sequences bear at any stage.
 */

#include "py/module.h"

static PyStructSequence_Field miss_fields[] = {
	{ "miss_id", "handle for Datapath.open()" },
	{ "proto", "IPPROTO_*" },
	{ "pif", "where it came from" },
	{ "eaddr", "its source" },
	{ "eport", "port of its source" },
	{ "oaddr", "its destination" },
	{ "oport", "port of its destination" },
	{ "listener", "number given to Datapath.listen(), or -1" },
	{ "crossed", "the server has not the client's family, it seems" },
	{ "again", "nobody listens where the first verdict sent it" },
	{ NULL, NULL },
};

static PyStructSequence_Field punt_fields[] = {
	{ "kind", "index of PUNT_KINDS" },
	{ "frame", "Ethernet frame" },
	{ NULL, NULL },
};

static PyStructSequence_Field said_fields[] = {
	{ "flow_id", "a flow that is inspected" },
	{ "data", "all that its guest has said, or None: it is gone" },
	{ "ended", "the guest says no more" },
	{ NULL, NULL },
};

static PyStructSequence_Field gone_fields[] = {
	{ "errno", "what ended the tap" },
	{ NULL, NULL },
};

static PyStructSequence_Field event_fields[] = {
	{ "time_ns", NULL },
	{ "event", "index of EVENTS" },
	{ "flow_id", "or -1" },
	{ "flow", "packed, with its addresses at that time, or None" },
	{ "args", "as many as EVENTS has names" },
	{ NULL, NULL },
};

static PyStructSequence_Desc miss_desc = { "passtpy._native.Miss",
					   "A packet without a flow",
					   miss_fields, 10 };

static PyStructSequence_Desc punt_desc = { "passtpy._native.Punt",
					   "A frame lifted to a service",
					   punt_fields, 2 };

static PyStructSequence_Desc said_desc = { "passtpy._native.Said",
					   "A guest said where it wants to go",
					   said_fields, 3 };

static PyStructSequence_Desc gone_desc = { "passtpy._native.Gone",
					   "The tap is gone", gone_fields, 1 };

static PyStructSequence_Desc event_desc = { "passtpy._native.Event",
					    "One log event", event_fields, 5 };

static int type_add(PyObject *module, PyStructSequence_Desc *desc,
		    PyTypeObject **ret_type)
{
	*ret_type = PyStructSequence_NewType(desc);
	if (!*ret_type)
		return -1;
	return PyModule_AddType(module, *ret_type);
}

int records_add_types(PyObject *module, struct module_state *state)
{
	if (type_add(module, &miss_desc, &state->miss) ||
	    type_add(module, &punt_desc, &state->punt) ||
	    type_add(module, &said_desc, &state->said) ||
	    type_add(module, &gone_desc, &state->gone) ||
	    type_add(module, &event_desc, &state->event))
		return -1;
	return 0;
}

/** struct filler - A record while it is filled
 * @record:	The struct sequence, NULL when it could not be made
 * @next:	Next item
 * @failed:	An item could not be made
 */
struct filler {
	PyObject *record;
	Py_ssize_t next;
	bool failed;
};

static struct filler fill_begin(PyTypeObject *type)
{
	PyObject *record = PyStructSequence_New(type);

	return (struct filler){ .record = record, .failed = !record };
}

/* fill() - Next item; takes the reference over */
static void fill(struct filler *f, PyObject *item)
{
	if (!item || f->failed) {
		f->failed = true;
		Py_XDECREF(item);
		return;
	}
	PyStructSequence_SetItem(f->record, f->next++, item);
}

static void fill_uint(struct filler *f, uint64_t value)
{
	fill(f, PyLong_FromUnsignedLongLong(value));
}

static void fill_bytes(struct filler *f, const void *data, size_t len)
{
	fill(f, PyBytes_FromStringAndSize(data, (Py_ssize_t)len));
}

static void fill_side(struct filler *f, const struct flowside *side)
{
	fill_bytes(f, &side->eaddr, sizeof(side->eaddr));
	fill_uint(f, side->eport);
	fill_bytes(f, &side->oaddr, sizeof(side->oaddr));
	fill_uint(f, side->oport);
}

static PyObject *fill_end(struct filler *f)
{
	if (f->failed)
		Py_CLEAR(f->record);
	return f->record;
}

PyObject *record_from_miss(const struct module_state *state,
			   const struct stage *stage, const struct miss *m)
{
	struct filler f = fill_begin(state->miss);

	fill_uint(&f, stage_miss_id(stage, m));
	fill_uint(&f, m->ipproto);
	fill_uint(&f, m->pif);
	fill_side(&f, &m->key);
	fill(&f, PyLong_FromLong(m->listener));
	fill(&f, PyBool_FromLong(m->crossed));
	fill(&f, PyBool_FromLong(m->again));
	return fill_end(&f);
}

PyObject *record_from_punt(const struct module_state *state,
			   const struct border_punts *punts, uint32_t i)
{
	struct filler f = fill_begin(state->punt);

	fill_uint(&f, punts->kind[i]);
	fill_bytes(&f, punts->buf + punts->off[i], punts->len[i]);
	return fill_end(&f);
}

PyObject *record_from_said(const struct module_state *state,
			   const struct said *said)
{
	struct filler f = fill_begin(state->said);

	fill_uint(&f, said->flow_id);
	if (said->gone)
		fill(&f, Py_NewRef(Py_None));
	else
		fill_bytes(&f, said->data.iov_base, said->data.iov_len);
	fill(&f, PyBool_FromLong(said->ended || said->gone));
	return fill_end(&f);
}

PyObject *record_from_errno(const struct module_state *state, int err)
{
	struct filler f = fill_begin(state->gone);

	fill(&f, PyLong_FromLong(err));
	return fill_end(&f);
}

/* flow_bytes() - The flow of a log event, packed */
static PyObject *flow_bytes(const struct log_record *event)
{
	struct border_flow flow;

	border_flow_from_log(&flow, event);
	return PyBytes_FromStringAndSize((const char *)&flow, sizeof(flow));
}

static PyObject *args_new(const struct log_record *event)
{
	const char *const *names = log_event_fields[event->event];
	Py_ssize_t n = 0;
	PyObject *args;

	while (n < LOG_ARGS && names[n] && *names[n])
		n++;
	args = PyTuple_New(n);
	for (Py_ssize_t i = 0; args && i < n; i++) {
		PyObject *arg = PyLong_FromLongLong(event->arg[i]);

		if (arg)
			PyTuple_SetItem(args, i, arg);
		else
			Py_CLEAR(args);
	}
	return args;
}

PyObject *record_from_event(const struct module_state *state,
			    const struct log_record *event)
{
	bool has_flow = event->flow_id != UINT64_MAX;
	struct filler f = fill_begin(state->event);

	fill_uint(&f, event->time);
	fill_uint(&f, event->event);
	if (has_flow) {
		fill_uint(&f, event->flow_id);
		fill(&f, flow_bytes(event));
	} else {
		fill(&f, PyLong_FromLong(-1));
		fill(&f, Py_NewRef(Py_None));
	}
	fill(&f, args_new(event));
	return fill_end(&f);
}
