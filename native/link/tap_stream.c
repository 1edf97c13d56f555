/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_stream.c - Backend for the stream socket of a virtual machine
 *
 * On the socket (qemu's -netdev stream and socket) a frame is a length of four
 * bytes, most significant first, and as many bytes; nothing marks where a read
 * begins. So there are two halves, and each has a rule:
 *
 * From the guest: one recv() takes whatever is there, frames are used as they
 * lie in the buffer, and what is left of the last one moves to the front before
 * the next recv(). A length that no frame can have means that both ends no
 * longer agree where frames start: only a new connection cures that.
 *
 * To the guest: frames are collected as pieces (length and headers in a slot,
 * payload where the tap says it stays) and go out in one sendmsg().
 * What the socket does not take must be kept, because half a frame may not be
 * taken back, and blocks the tap. While it is blocked nobody reads from host
 * sockets, so what comes on top is little: answers to the guest's own frames,
 * and what was read before. It joins the backlog while that has room; beyond,
 * write says so and the frame is lost, as on any link whose queue is full.
 *
 * The guest has no offload here: link/offload.c cuts and checksums what goes to
 * it, link/merge.c puts together what comes from it.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "base/sys.h"
#include "link/backends.h"
#include "link/backlog.h"
#include "link/offload.h"

#define PREFIX sizeof(uint32_t) /* length before each frame */

#define FRAME_MAX 65535 /* longest frame on the socket, as qemu's own peers */
#define FRAME_MIN 60 /* shortest to the guest: a network card's, without FCS */

/* Asked of the kernel, which may grant less (net.core.wmem_max) */
#define SOCK_BUF (4 << 20)

/* One recv() takes all that the guest's end of the socket holds by default (208
 * KiB): what it left would cost a round, and an acknowledgement, of its own */
#define RX_READ (256 * 1024)
#define RX_BUF	(RX_READ + PREFIX + FRAME_MAX) /* and half a frame */

#define TX_IOV	  1024	    /* pieces of one sendmsg(): UIO_MAXIOV */
#define TX_FRAMES 512	    /* frames of one sendmsg() */
#define QUEUE_MAX (2 << 20) /* bytes of one sendmsg() */
_Static_assert(QUEUE_MAX < BACKLOG_MAX, "whatever was collected can wait");

/** struct tx_slot - What is ours of a frame on its way out
 * @len:	Length of the frame, network order
 * @hdr:	Headers
 */
struct tx_slot {
	uint32_t len;
	uint8_t hdr[TAP_HDR_MAX];
};

/** struct tap_stream
 * @rx_off:	Where in t->rx_buf the next frame starts
 * @rx_end:	End of what was read
 * @short_read:	The last recv() took all there was
 * @n_iov:	Pieces collected
 * @n_slots:	Frames collected
 * @queued:	Bytes of them
 * @iov:	Pieces of the frames collected, in order
 * @slots:	Lengths and headers of these frames
 * @backlog:	Bytes that the socket has not taken
 */
struct tap_stream {
	size_t rx_off;
	size_t rx_end;
	bool short_read;
	unsigned n_iov;
	unsigned n_slots;
	size_t queued;
	struct iovec iov[TX_IOV];
	struct tx_slot slots[TX_FRAMES];
	struct backlog backlog;
};

static const uint8_t zeros[FRAME_MIN];

static struct tap_stream *stream_of(const struct tap *t)
{
	return t->own;
}

/* From the guest */

/* frame_length() - Length of the next frame in the buffer
 * Return: bytes; 0: its length is not complete; -EPROTO: no frame has that */
static ssize_t frame_length(const struct tap *t)
{
	const struct tap_stream *s = stream_of(t);
	uint32_t len;

	if (s->rx_end - s->rx_off < PREFIX)
		return 0;
	memcpy(&len, t->rx_buf + s->rx_off, PREFIX);
	len = ntohl(len);
	return len < ETH_HLEN_ || len > FRAME_MAX ? -EPROTO : (ssize_t)len;
}

/* stream_parse() - Hand out whole frames; returns their number or -EPROTO */
static int stream_parse(struct tap *t)
{
	struct tap_stream *s = stream_of(t);
	ssize_t len;
	int n = 0;

	while ((len = frame_length(t)) > 0 &&
	       s->rx_end - s->rx_off >= PREFIX + (size_t)len) {
		if (n == TAP_BATCH)
			break;
		t->rx[n++] = (struct tap_rx){
			.data = t->rx_buf + s->rx_off + PREFIX,
			.len = (uint32_t)len,
		};
		s->rx_off += PREFIX + (size_t)len;
	}
	/* Frames before a nonsense length count; it is met again next time */
	if (len < 0 && !n)
		return (int)len;
	t->more = len < 0 || n == TAP_BATCH;
	t->drained = s->short_read && !t->more;
	return n;
}

/* stream_fill() - Read what is there; bytes, 0: nothing, -errno: it is over */
static ssize_t stream_fill(struct tap *t)
{
	struct tap_stream *s = stream_of(t);
	ssize_t n;

	if (s->rx_off) {
		memmove(t->rx_buf, t->rx_buf + s->rx_off,
			s->rx_end - s->rx_off);
		s->rx_end -= s->rx_off;
		s->rx_off = 0;
	}
	do
		n = sys_recv(t->fd, t->rx_buf + s->rx_end, RX_BUF - s->rx_end,
			     MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (!n)
		return -ENOTCONN;
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	s->short_read = (size_t)n < RX_BUF - s->rx_end;
	s->rx_end += (size_t)n;
	return n;
}

static int stream_read(struct tap *t)
{
	ssize_t n;

	if (t->fd < 0)
		return 0;
	n = stream_parse(t); /* what the last batch had no room for */
	if (n)
		return (int)n;
	t->drained = true;
	n = stream_fill(t);
	return n > 0 ? stream_parse(t) : (int)n;
}

/* To the guest */

static uint8_t *append(uint8_t *p, const void *data, size_t len)
{
	if (len)
		memcpy(p, data, len);
	return p + len;
}

/* sock_send() - What the socket takes of @iov; bytes, or -errno
 *
 * That the other end is gone is told by the next read, in one place. */
static ssize_t sock_send(const struct tap *t, struct iovec *iov, unsigned n)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t rc;

	do
		rc = sys_sendmsg(t->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

/* stream_block() - The socket took @sent bytes of what was collected: the rest
 * waits. Nothing did before, so there is room */
static void stream_block(struct tap *t, size_t sent)
{
	struct tap_stream *s = stream_of(t);
	uint8_t *p = backlog_add(&s->backlog, s->queued - sent);

	for (unsigned i = 0; i < s->n_iov; i++) {
		const struct iovec *piece = &s->iov[i];
		size_t done = MIN(sent, piece->iov_len);

		p = append(p, (uint8_t *)piece->iov_base + done,
			   piece->iov_len - done);
		sent -= done;
	}
	t->blocked = true;
	count(t->cnt, CNT_TAP_BLOCKED);
}

/* stream_send() - Send what was collected */
static void stream_send(struct tap *t)
{
	struct tap_stream *s = stream_of(t);
	ssize_t rc;

	if (!s->n_iov)
		return;
	rc = sock_send(t, s->iov, s->n_iov);
	if (rc < (ssize_t)s->queued)
		stream_block(t, rc > 0 ? (size_t)rc : 0);
	s->n_iov = s->n_slots = 0;
	s->queued = 0;
}

/* padding() - Bytes of zero that a short frame lacks (IEEE 802.3 3.2.8) */
static uint32_t padding(uint32_t len)
{
	return len < FRAME_MIN ? FRAME_MIN - len : 0;
}

/* stream_keep() - The socket is full: the frame waits as well, or is refused */
static int stream_keep(struct tap_stream *s, const struct frame_out *f,
		       const struct iovec *payload, unsigned n, uint32_t len)
{
	uint32_t pad = padding(len), prefix = htonl(len + pad);
	uint8_t *p = backlog_add(&s->backlog, PREFIX + len + pad);

	if (!p)
		return -EAGAIN;
	p = append(p, &prefix, PREFIX);
	p = append(p, f->hdr, f->hdr_len);
	for (unsigned i = 0; i < n; i++)
		p = append(p, payload[i].iov_base, payload[i].iov_len);
	memset(p, 0, pad);
	return 0;
}

/* stream_emit() - Collect a frame that needs no offload any more */
static int stream_emit(void *arg, const struct frame_out *f,
		       const struct iovec *payload, unsigned n)
{
	struct tap *t = arg;
	struct tap_stream *s = stream_of(t);
	uint32_t len = f->hdr_len, pad;
	struct tx_slot *slot;

	for (unsigned i = 0; i < n; i++)
		len += (uint32_t)payload[i].iov_len;
	if (s->n_iov + 2 + n > TX_IOV || s->n_slots == TX_FRAMES ||
	    s->queued + PREFIX + len > QUEUE_MAX)
		stream_send(t);
	if (t->blocked)
		return stream_keep(s, f, payload, n, len);

	pad = padding(len);
	slot = &s->slots[s->n_slots++];
	slot->len = htonl(len + pad);
	memcpy(slot->hdr, f->hdr, f->hdr_len);
	s->iov[s->n_iov++] = (struct iovec){ slot, PREFIX + f->hdr_len };
	for (unsigned i = 0; i < n; i++)
		s->iov[s->n_iov++] = payload[i];
	if (pad)
		s->iov[s->n_iov++] = (struct iovec){ (void *)zeros, pad };
	s->queued += PREFIX + len + pad;
	return 0;
}

static int stream_write(struct tap *t, struct frame_out *f,
			const struct iovec *payload, unsigned n, uint32_t len)
{
	if (t->fd < 0)
		return -ENOTCONN;
	return offload_emit(f, payload, n, len, stream_emit, t);
}

static void stream_flush(struct tap *t)
{
	if (t->fd >= 0)
		stream_send(t);
}

/* stream_room() - Send what waits */
static void stream_room(struct tap *t)
{
	struct tap_stream *s = stream_of(t);
	struct iovec iov = { backlog_head(&s->backlog),
			     backlog_len(&s->backlog) };
	ssize_t sent;

	if (t->fd < 0 || !t->blocked)
		return;
	sent = sock_send(t, &iov, 1);
	if (sent > 0)
		backlog_drop(&s->backlog, (size_t)sent);
	t->blocked = backlog_len(&s->backlog) > 0;
}

/* stream_watch() - Room shows as EPOLLOUT of the socket */
static void stream_watch(struct tap *t)
{
	if (t->fd >= 0 && t->epoll)
		epoll_mod_fixed(t->epoll, EPOLL_TAP, t->fd, 0,
				EPOLLIN | (t->blocked ? EPOLLOUT : 0));
}

/* Coming and going */

static void stream_detach(struct tap *t)
{
	struct tap_stream *s = stream_of(t);

	if (t->fd >= 0)
		tap_fd_del(t, EPOLL_TAP, t->fd);
	s->rx_off = s->rx_end = 0;
	s->n_iov = s->n_slots = 0;
	s->queued = 0;
	backlog_clear(&s->backlog);
}

static void stream_free(struct tap *t)
{
	struct tap_stream *s = stream_of(t);

	if (s)
		backlog_free(&s->backlog);
	free(s);
	t->own = NULL;
}

/* stream_attach() - It may be shared with other processes: its flags stay */
static int stream_attach(struct tap *t, int fd)
{
	int type, err, size = SOCK_BUF;
	socklen_t len = sizeof(type);

	if (t->fd >= 0)
		return -EBUSY;
	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	err = tap_fd_add(t, EPOLL_TAP, fd);
	if (err)
		return err;
	(void)sys_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)sys_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	t->fd = fd;
	t->blocked = false;
	return 0;
}

static int stream_init(struct tap *t, const struct tap_env *env)
{
	struct tap_stream *s = sys_calloc(1, sizeof(*s));

	(void)env;
	t->merge = true;
	t->own = s;
	return s ? backlog_init(&s->backlog) : -ENOMEM;
}

const struct tap_ops tap_stream_ops = {
	.name = "stream",
	.refers = true,
	.mtu_max = FRAME_MAX - ETH_HLEN_,
	.rx_size = RX_BUF,
	.init = stream_init,
	.read = stream_read,
	.write = stream_write,
	.flush = stream_flush,
	.room = stream_room,
	.watch = stream_watch,
	.attach = stream_attach,
	.detach = stream_detach,
	.free = stream_free,
};
