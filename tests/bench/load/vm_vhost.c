// SPDX-License-Identifier: GPL-2.0-or-later
/* The guest's link over vhost-user: the front-end's messages, in qemu's order.
 *
 * All of the guest's memory is one memfd: rings, buffers, and the pattern, which
 * is sent from where it is. A frame of the guest is a descriptor with the
 * virtio-net header and the protocol headers, and one or more with payload; the
 * guest receives into buffers of a page, which the translator merges.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm.h"
#include "vm_ring.h"

#define GUEST_BASE 0x40000000ULL /* where the guest believes its memory to be */
#define VNET_LEN   12
#define PAGE	   4096UL
#define PIECE	   32768U /* the most that a guest has in one piece */
#define RX_BUDGET  64	  /* frames of one round, as in the kernel's polling */

enum { RX, TX, RINGS };

enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
};

#define MESSAGE_V1    0x1U
#define MESSAGE_REPLY 0x4U
#define MESSAGE_ACK   0x8U

#define F_CSUM	       (1ULL << 0)
#define F_GUEST_CSUM   (1ULL << 1)
#define F_GUEST_TSO4   (1ULL << 7)
#define F_HOST_TSO4    (1ULL << 11)
#define F_MRG_RXBUF    (1ULL << 15)
#define F_EVENT_IDX    (1ULL << 29)
#define F_PROTOCOL     (1ULL << 30)
#define F_VERSION_1    (1ULL << 32)
#define PROTOCOL_F_ACK (1ULL << 3)
#define NEEDS_CSUM     1
#define GSO_TCPV4      1
#define FEATURES_WANTED                                                     \
	(F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG_RXBUF | \
	 F_EVENT_IDX | F_PROTOCOL | F_VERSION_1)

/**
 * struct vhost_link - The link
 * @base:	What the guest knows of it
 * @fd:		The socket
 * @acks:	REPLY_ACK was negotiated
 * @memory:	The guest's memory
 * @size:	Bytes of it
 * @memfd:	The same as a file
 * @rings:	Receive and transmit queue
 * @heads:	In @memory: headers of frames out, one for each descriptor
 * @buffers:	In @memory: pages to receive into, one for each descriptor
 */
struct vhost_link {
	struct vm_link base;
	int fd;
	bool acks;
	uint8_t *memory;
	size_t size;
	int memfd;
	struct ring rings[RINGS];
	uint8_t (*heads)[VNET_LEN + VM_HDR_LEN];
	uint8_t *buffers;
};

/** struct message - As on the socket (vhost-user, "Message Specification") */
struct message {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	uint64_t words[5];
} __attribute__((packed));

#define MESSAGE_HEAD 12

static uint64_t guest_address(const struct vhost_link *v, const void *p)
{
	return GUEST_BASE + (uint64_t)((const uint8_t *)p - v->memory);
}

/* Messages */

static int read_reply(struct vhost_link *v, uint64_t *ret_value)
{
	struct message m = { 0 };

	if (recv(v->fd, &m, MESSAGE_HEAD, MSG_WAITALL) != MESSAGE_HEAD ||
	    m.size != sizeof(uint64_t) ||
	    recv(v->fd, m.words, m.size, MSG_WAITALL) != (ssize_t)m.size) {
		errno = EPROTO;
		return -1;
	}
	*ret_value = m.words[0];
	return 0;
}

/**
 * tell() - Send one message, with a file if it carries one
 * @v:		Link
 * @m:		Request, words and size; the rest is filled in
 * @fd:		File to pass, or -1
 *
 * Return: 0, or -1 with errno set
 */
static int tell(struct vhost_link *v, struct message *m, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { m, MESSAGE_HEAD + m->size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint64_t failed;

	m->flags |= MESSAGE_V1;
	if (v->acks && m->request != GET_FEATURES)
		m->flags |= MESSAGE_ACK;
	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
	}
	if (sendmsg(v->fd, &message, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		return -1;
	if (!(m->flags & MESSAGE_ACK))
		return 0;
	if (read_reply(v, &failed))
		return -1;
	errno = failed ? EPROTO : 0;
	return failed ? -1 : 0;
}

static int tell_number(struct vhost_link *v, uint32_t request, uint64_t value,
		       int fd)
{
	struct message m = { .request = request,
			     .size = 8,
			     .words = { value } };

	return tell(v, &m, fd);
}

static int ask(struct vhost_link *v, uint32_t request, uint64_t *ret_value)
{
	struct message m = { .request = request };
	bool acks = v->acks;
	int err;

	v->acks = false; /* the answer is acknowledgement enough */
	err = tell(v, &m, -1);
	v->acks = acks;
	return err ? err : read_reply(v, ret_value);
}

static int tell_memory(struct vhost_link *v)
{
	struct message m = { .request = SET_MEM_TABLE, .size = 40 };

	m.words[0] = 1; /* region */
	m.words[1] = GUEST_BASE;
	m.words[2] = v->size;
	m.words[3] = (uint64_t)(uintptr_t)v->memory;
	m.words[4] = 0; /* offset in the file */
	return tell(v, &m, v->memfd);
}

static int tell_ring(struct vhost_link *v, uint32_t index)
{
	const struct ring *r = &v->rings[index];
	struct message m = { .request = SET_VRING_ADDR, .size = 40 };

	m.words[0] = index;
	m.words[1] = (uint64_t)(uintptr_t)r->desc;
	m.words[2] = (uint64_t)(uintptr_t)r->used;
	m.words[3] = (uint64_t)(uintptr_t)r->avail;
	return tell_number(v, SET_VRING_NUM, index | (uint64_t)r->size << 32,
			   -1) ||
	       tell_number(v, SET_VRING_BASE, index, -1) || tell(v, &m, -1) ||
	       tell_number(v, SET_VRING_KICK, index, r->kick) ||
	       tell_number(v, SET_VRING_CALL, index, r->call);
}

static int negotiate(struct vhost_link *v, const struct options *o,
		     uint64_t *ret_features)
{
	struct message owner = { .request = SET_OWNER };
	uint64_t features, protocol = 0;

	if (ask(v, GET_FEATURES, &features))
		return -1;
	features &= FEATURES_WANTED & (o->features | F_PROTOCOL | F_VERSION_1);
	if (!(features & F_PROTOCOL) || !(features & F_VERSION_1)) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	if (ask(v, GET_PROTOCOL_FEATURES, &protocol) ||
	    tell_number(v, SET_PROTOCOL_FEATURES, protocol & PROTOCOL_F_ACK,
			-1))
		return -1;
	v->acks = protocol & PROTOCOL_F_ACK;
	*ret_features = features;
	return tell(v, &owner, -1) ||
	       tell_number(v, SET_FEATURES, features, -1);
}

static int start(struct vhost_link *v)
{
	uint32_t i;

	if (tell_memory(v))
		return -1;
	for (i = 0; i < RINGS; i++) {
		if (tell_ring(v, i))
			return -1;
	}
	for (i = 0; i < RINGS; i++) {
		if (tell_number(v, SET_VRING_ENABLE, i | 1ULL << 32, -1))
			return -1;
	}
	return 0;
}

/* Frames out */

static void reclaim(struct ring *r)
{
	uint32_t len;
	uint16_t id;

	while (ring_pop(r, &id, &len))
		;
}

static uint8_t *vhost_slot(struct vm_link *l)
{
	struct vhost_link *v = (struct vhost_link *)l;
	struct ring *r = &v->rings[TX];

	if (r->free_count < 4)
		reclaim(r);
	return r->free_count < 4 ? NULL : v->heads[r->free] + VNET_LEN;
}

static void vhost_commit(struct vm_link *l, const struct vm_frame *f)
{
	struct vhost_link *v = (struct vhost_link *)l;
	uint16_t pieces = (uint16_t)((f->len + PIECE - 1) / PIECE);
	struct ring *r = &v->rings[TX];
	uint32_t left = f->len, phase = f->phase;
	uint16_t head = ring_take(r, (uint16_t)(1 + pieces)), at = head;
	uint8_t *vnet = f->hdr - VNET_LEN;
	bool tcp = f->hdr[VM_ETH_LEN + 9] == 6;

	memset(vnet, 0, VNET_LEN);
	if (f->partial) {
		vnet[0] = NEEDS_CSUM;
		vnet[6] = VM_ETH_LEN + 20; /* csum_start, least byte first */
		vnet[8] = tcp ? 16 : 6;
	}
	if (f->mss) {
		vnet[1] = GSO_TCPV4;
		vnet[2] = (uint8_t)f->hdr_len;
		vnet[4] = (uint8_t)f->mss;
		vnet[5] = (uint8_t)(f->mss >> 8);
	}
	r->desc[at].addr = guest_address(v, vnet);
	r->desc[at].len = VNET_LEN + f->hdr_len;
	r->desc[at].flags = left ? RING_F_NEXT : 0;
	while (left) {
		uint32_t n = left < PIECE ? left : PIECE;

		at = r->desc[at].next;
		r->desc[at].addr = guest_address(v, l->pattern + phase);
		r->desc[at].len = n;
		left -= n;
		phase += n;
		r->desc[at].flags = left ? RING_F_NEXT : 0;
	}
	ring_offer(r, head);
}

static void vhost_flush(struct vm_link *l)
{
	struct vhost_link *v = (struct vhost_link *)l;

	ring_kick(&v->rings[TX]);
}

/* Frames in */

/* refill() - Give every free descriptor's page to the translator */
static void refill(struct vhost_link *v)
{
	struct ring *r = &v->rings[RX];

	while (r->free_count) {
		uint16_t id = ring_take(r, 1);

		r->desc[id].addr = guest_address(v, v->buffers + id * PAGE);
		r->desc[id].len = PAGE;
		r->desc[id].flags = RING_F_WRITE;
		ring_offer(r, id);
	}
	ring_kick(r);
}

/* take_frame() - One frame, in as many buffers as its header says */
static bool take_frame(struct vhost_link *v, struct vm_guest *g)
{
	struct ring *r = &v->rings[RX];
	struct iovec pieces[VM_PIECES];
	struct vm_packet p = { .pieces = pieces };
	const uint8_t *vnet = NULL;
	unsigned int want = 1;
	uint32_t len;
	uint16_t id;

	while (p.n < want && ring_pop(r, &id, &len)) {
		uint8_t *data = v->buffers + id * PAGE;

		if (!p.n) {
			vnet = data;
			want = vnet[10] | (unsigned int)vnet[11] << 8;
			data += VNET_LEN;
			len -= VNET_LEN;
		}
		if (want > VM_PIECES || len > PAGE)
			break;
		pieces[p.n++] = (struct iovec){ data, len };
		p.len += len;
	}
	if (!p.n)
		return false;
	if (p.n < want) {
		v->base.gone = EPROTO;
		return false;
	}
	p.partial = vnet[0] & NEEDS_CSUM;
	vm_input(g, &p);
	return true;
}

static unsigned int vhost_receive(struct vm_link *l, struct vm_guest *g)
{
	struct vhost_link *v = (struct vhost_link *)l;
	unsigned int n = 0;

	while (n < RX_BUDGET && take_frame(v, g))
		n++;
	if (n)
		refill(v);
	l->hot |= n == RX_BUDGET;
	return n;
}

static void drain_event(int fd, short revents)
{
	uint64_t value;

	if (revents & POLLIN)
		(void)!read(fd, &value, sizeof(value));
}

static void vhost_wait(struct vm_link *l, int64_t timeout_ns)
{
	struct vhost_link *v = (struct vhost_link *)l;
	struct timespec limit = {
		.tv_sec = timeout_ns / (int64_t)NS_PER_S,
		.tv_nsec = timeout_ns % (int64_t)NS_PER_S,
	};
	struct pollfd p[3] = {
		{ .fd = v->rings[RX].call, .events = POLLIN },
		{ .fd = v->rings[TX].call, .events = POLLIN },
		{ .fd = v->fd, .events = POLLIN },
	};
	bool full = v->rings[TX].free_count < 4;

	if (!(ring_arm(&v->rings[RX], true) || ring_arm(&v->rings[TX], full))) {
		ppoll(p, 3, &limit, NULL);
		drain_event(p[0].fd, p[0].revents);
		drain_event(p[1].fd, p[1].revents);
		if (p[2].revents)
			l->gone = ECONNRESET;
	}
	ring_arm(&v->rings[RX], false);
}

static const struct vm_link_ops vhost_ops = {
	.slot = vhost_slot,
	.commit = vhost_commit,
	.flush = vhost_flush,
	.receive = vhost_receive,
	.wait = vhost_wait,
};

/* make_memory() - The guest's memory, and where everything lies in it */
static int make_memory(struct vhost_link *v, uint16_t size)
{
	size_t rings = (RING_BYTES(size) + PAGE) & ~(PAGE - 1);
	size_t heads = sizeof(*v->heads) * size;
	uint8_t *at;

	v->size = RINGS * rings + PAGE * size + heads + PATTERN_SIZE;
	v->size = (v->size + PAGE - 1) & ~(PAGE - 1);
	v->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (v->memfd < 0 || ftruncate(v->memfd, (off_t)v->size))
		return -1;
	at = mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_SHARED, v->memfd,
		  0);
	if (at == MAP_FAILED)
		return -1;
	v->memory = at;
	v->buffers = at + RINGS * rings;
	v->heads = (void *)(v->buffers + PAGE * size);
	v->base.pattern = (uint8_t *)v->heads + heads;
	return 0;
}

static int make_rings(struct vhost_link *v, uint16_t size, bool event_idx)
{
	size_t bytes = (RING_BYTES(size) + PAGE) & ~(PAGE - 1);

	for (unsigned int i = 0; i < RINGS; i++) {
		ring_init(&v->rings[i], v->memory + i * bytes, size, event_idx);
		v->rings[i].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		v->rings[i].call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->rings[i].kick < 0 || v->rings[i].call < 0)
			return -1;
	}
	return 0;
}

/**
 * vm_vhost_link() - Connect to a translator that speaks vhost-user
 * @o:		Options: vm, features, queue
 *
 * Return: the link, or NULL with errno set
 */
struct vm_link *vm_vhost_link(const struct options *o)
{
	struct vhost_link *v = calloc(1, sizeof(*v));
	uint16_t size = 1;
	uint64_t features;

	while (size * 2U <= o->queue)
		size = (uint16_t)(size * 2);
	if (!v || make_memory(v, size))
		return NULL;
	v->fd = vm_connect(o->vm);
	if (v->fd < 0 || negotiate(v, o, &features) ||
	    make_rings(v, size, features & F_EVENT_IDX) || start(v))
		return NULL;
	v->base.ops = &vhost_ops;
	v->base.csum = features & F_CSUM;
	v->base.tso = features & F_HOST_TSO4;
	refill(v);
	return &v->base;
}
