// SPDX-License-Identifier: GPL-2.0-or-later
/* The guest's link over a stream socket: a length of four bytes, then a frame.
 *
 * Frames are gathered, so that a batch is one call, and the socket has its
 * default size, as qemu leaves it.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "vm.h"

#define SLOTS	      512 /* frames of a batch: two pieces each, IOV_MAX in all */
#define BATCH	      (256 * 1024)
#define READ_BYTES    (160 * 1024)
#define CONNECT_TRIES 100
#define FRAME_MAX     (4 + 65536 + VM_ETH_LEN)

/**
 * struct stream_link - The link
 * @base:	What the guest knows of it
 * @fd:		The socket
 * @frames:	Frames in the batch
 * @bytes:	Bytes in the batch
 * @stuck:	The socket has not taken all of the batch
 * @first:	First piece that it has not taken
 * @pieces:	Number of pieces
 * @iov:	The pieces
 * @heads:	A length and headers for each frame
 * @have:	Bytes of an incomplete frame in @buffer
 * @buffer:	What was read
 */
struct stream_link {
	struct vm_link base;
	int fd;
	unsigned int frames;
	size_t bytes;
	bool stuck;
	unsigned int first, pieces;
	struct iovec iov[2 * SLOTS];
	uint8_t heads[SLOTS][4 + VM_HDR_LEN];
	size_t have;
	uint8_t buffer[READ_BYTES + FRAME_MAX];
};

static uint8_t *stream_slot(struct vm_link *l)
{
	struct stream_link *s = (struct stream_link *)l;

	if (s->stuck)
		return NULL;
	if (s->frames == SLOTS || s->bytes >= BATCH) {
		l->hot = true;
		return NULL;
	}
	return s->heads[s->frames] + 4;
}

static void stream_commit(struct vm_link *l, const struct vm_frame *f)
{
	struct stream_link *s = (struct stream_link *)l;
	uint8_t *head = s->heads[s->frames++];

	put32(head, f->hdr_len + f->len);
	s->iov[s->pieces++] = (struct iovec){ head, 4 + f->hdr_len };
	if (f->len)
		s->iov[s->pieces++] =
			(struct iovec){ l->pattern + f->phase, f->len };
	s->bytes += 4 + f->hdr_len + f->len;
}

/* consume() - The socket has taken @n bytes */
static void consume(struct stream_link *s, size_t n)
{
	while (s->first < s->pieces && n >= s->iov[s->first].iov_len)
		n -= s->iov[s->first++].iov_len;
	if (s->first < s->pieces) {
		struct iovec *part = &s->iov[s->first];

		part->iov_base = (uint8_t *)part->iov_base + n;
		part->iov_len -= n;
		return;
	}
	s->first = s->pieces = s->frames = 0;
	s->bytes = 0;
}

static void stream_flush(struct vm_link *l)
{
	struct stream_link *s = (struct stream_link *)l;
	struct msghdr message = {
		.msg_iov = s->iov + s->first,
		.msg_iovlen = s->pieces - s->first,
	};
	ssize_t n;

	if (!s->pieces)
		return;
	n = sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0) {
		if (errno != EAGAIN)
			l->gone = errno;
		n = 0;
	}
	consume(s, (size_t)n);
	if (s->pieces)
		l->hot = false;
	else if (s->stuck)
		l->hot = true; /* who was refused may go on */
	s->stuck = s->pieces;
}

static unsigned int stream_receive(struct vm_link *l, struct vm_guest *g)
{
	struct stream_link *s = (struct stream_link *)l;
	unsigned int frames = 0;
	size_t pos = 0;
	ssize_t n;

	n = recv(s->fd, s->buffer + s->have, READ_BYTES, MSG_DONTWAIT);
	if (n <= 0) {
		if (!n || errno != EAGAIN)
			l->gone = n ? errno : ECONNRESET;
		return 0;
	}
	l->hot = n == READ_BYTES;
	s->have += (size_t)n;
	while (s->have - pos >= 4) {
		size_t len = get32(s->buffer + pos);
		struct iovec piece = { s->buffer + pos + 4, len };
		struct vm_packet p = { .pieces = &piece, .n = 1, .len = len };

		if (len > FRAME_MAX - 4) {
			l->gone = EPROTO;
			return frames;
		}
		if (s->have - pos < 4 + len)
			break;
		vm_input(g, &p);
		pos += 4 + len;
		frames++;
	}
	s->have -= pos;
	memmove(s->buffer, s->buffer + pos, s->have);
	return frames;
}

static void stream_wait(struct vm_link *l, int64_t timeout_ns)
{
	struct stream_link *s = (struct stream_link *)l;
	struct timespec limit = {
		.tv_sec = timeout_ns / (int64_t)NS_PER_S,
		.tv_nsec = timeout_ns % (int64_t)NS_PER_S,
	};
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	if (s->pieces)
		p.events |= POLLOUT;
	ppoll(&p, 1, &limit, NULL);
}

static const struct vm_link_ops stream_ops = {
	.slot = stream_slot,
	.commit = stream_commit,
	.flush = stream_flush,
	.receive = stream_receive,
	.wait = stream_wait,
};

/**
 * vm_connect() - Connect to a translator's socket
 * @path:	Of the socket
 *
 * It may be there before anybody listens: that is asked again for a while.
 *
 * Return: file descriptor, or -1 with errno set
 */
int vm_connect(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (strlen(path) >= sizeof(sa.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path));
	for (int i = 0; i < CONNECT_TRIES; i++) {
		if (!connect(fd, (const struct sockaddr *)&sa, sizeof(sa)))
			return fd;
		if (errno != ECONNREFUSED)
			break;
		usleep(10000);
	}
	return -1;
}

/**
 * vm_stream_link() - Connect to a translator that wants frames on its socket
 * @o:		Options: vm
 *
 * Return: the link, or NULL with errno set
 */
struct vm_link *vm_stream_link(const struct options *o)
{
	struct stream_link *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base.ops = &stream_ops;
	s->base.pattern = malloc(PATTERN_SIZE);
	s->fd = vm_connect(o->vm);
	if (s->base.pattern && s->fd >= 0)
		return &s->base;
	free(s->base.pattern);
	free(s);
	return NULL;
}
