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
 * To the guest: frames of a batch are collected as pieces (length and headers
 * in a slot, payload where the handler has it) and go out in one sendmsg().
 * What the socket does not take must be kept, because half a frame may not be
 * taken back, and blocks the tap. While it is blocked nobody reads from host
 * sockets, so what comes on top is little: answers to the guest's own frames,
 * and what was read before. It is appended up to KEEP_MAX; beyond that, write
 * says so and the frame is lost, as on any link whose queue is full.
 *
 * The guest has no offload here: link/offload.c cuts and checksums what goes to
 * it, link/merge.c puts together what comes from it.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "link/offload.h"
#include "link/tap.h"
#include "link/tap_faults.h"

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
#define KEEP_MAX  (4 << 20) /* bytes that wait for the socket */
_Static_assert(QUEUE_MAX < KEEP_MAX, "whatever was collected can wait");

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
 * @keep:	KEEP_MAX bytes, touched on demand
 * @keep_off:	First byte of @keep that the socket has not taken
 * @keep_end:	End of what waits; equal to @keep_off: nothing does
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
	uint8_t *keep;
	size_t keep_off;
	size_t keep_end;
};

static const uint8_t zeros[FRAME_MIN];

/* From the guest */

/* frame_length() - Length of the next frame in the buffer
 * Return: bytes; 0: its length is not complete; -EPROTO: no frame has that */
static ssize_t frame_length(const struct tap *t)
{
	const struct tap_stream *s = t->stream;
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
	struct tap_stream *s = t->stream;
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
	struct tap_stream *s = t->stream;
	ssize_t n;

	if (s->rx_off) {
		memmove(t->rx_buf, t->rx_buf + s->rx_off,
			s->rx_end - s->rx_off);
		s->rx_end -= s->rx_off;
		s->rx_off = 0;
	}
	do
		n = recv(t->fd, t->rx_buf + s->rx_end, RX_BUF - s->rx_end,
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
	if (!t->more) {
		t->drained = true;
		n = stream_fill(t);
		if (n <= 0)
			return (int)n;
	}
	return stream_parse(t);
}

/* To the guest */

/* keep() - Append bytes to what waits; there is room */
static void keep(struct tap_stream *s, const void *data, size_t len)
{
	if (!len)
		return;
	memcpy(s->keep + s->keep_end, data, len);
	s->keep_end += len;
}

/* keep_room() - Is there room for @len more bytes? */
static bool keep_room(struct tap_stream *s, size_t len)
{
	if (KEEP_MAX - s->keep_end >= len)
		return true;
	memmove(s->keep, s->keep + s->keep_off, s->keep_end - s->keep_off);
	s->keep_end -= s->keep_off;
	s->keep_off = 0;
	return KEEP_MAX - s->keep_end >= len;
}

/* sock_send() - What the socket takes of @iov; bytes, or -errno
 *
 * That the other end is gone is told by the next read, in one place. */
static ssize_t sock_send(const struct tap *t, struct iovec *iov, unsigned n)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t rc;

	do
		rc = sendmsg(t->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

/* stream_send() - Send what was collected; keep what the socket leaves */
static void stream_send(struct tap *t)
{
	struct tap_stream *s = t->stream;
	size_t skip;
	ssize_t rc;

	if (!s->n_iov)
		return;
	rc = sock_send(t, s->iov, s->n_iov);
	skip = rc > 0 ? (size_t)rc : 0;
	if (skip < s->queued) { /* nothing waits yet: there is room */
		t->blocked = true;
		count(t->cnt, CNT_TAP_BLOCKED);
		for (unsigned i = 0; i < s->n_iov; i++) {
			size_t len = s->iov[i].iov_len;
			size_t done = MIN(skip, len);

			keep(s, (uint8_t *)s->iov[i].iov_base + done,
			     len - done);
			skip -= done;
		}
	}
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

	if (!keep_room(s, PREFIX + len + pad))
		return -EAGAIN;
	keep(s, &prefix, PREFIX);
	keep(s, f->hdr, f->hdr_len);
	for (unsigned i = 0; i < n; i++)
		keep(s, payload[i].iov_base, payload[i].iov_len);
	keep(s, zeros, pad);
	return 0;
}

/* stream_emit() - Collect a frame that needs no offload any more */
static int stream_emit(void *arg, const struct frame_out *f,
		       const struct iovec *payload, unsigned n)
{
	struct tap *t = arg;
	struct tap_stream *s = t->stream;
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
	memcpy(s->iov + s->n_iov, payload, n * sizeof(*payload));
	s->n_iov += n;
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

static int stream_flush(struct tap *t)
{
	if (t->fd >= 0)
		stream_send(t);
	return 0;
}

/* stream_room() - Send what waits */
static void stream_room(struct tap *t)
{
	struct tap_stream *s = t->stream;
	struct iovec iov = { s->keep + s->keep_off, s->keep_end - s->keep_off };
	ssize_t sent;

	if (t->fd < 0 || !t->blocked)
		return;
	sent = sock_send(t, &iov, 1);
	if (sent > 0)
		s->keep_off += (size_t)sent;
	if (s->keep_off < s->keep_end)
		return;
	s->keep_off = s->keep_end = 0;
	t->blocked = false;
}

/* Coming and going */

static void stream_detach(struct tap *t)
{
	struct tap_stream *s = t->stream;

	s->rx_off = s->rx_end = 0;
	s->n_iov = s->n_slots = 0;
	s->queued = 0;
	s->keep_off = s->keep_end = 0;
}

static void stream_free(struct tap *t)
{
	if (t->stream)
		free(t->stream->keep);
	free(t->stream);
	t->stream = NULL;
}

static const struct tap_ops stream_ops = {
	.name = "stream",
	.room_is_out = true,
	.read = stream_read,
	.write = stream_write,
	.flush = stream_flush,
	.room = stream_room,
	.detach = stream_detach,
	.free = stream_free,
};

int tap_stream_init(struct tap *t, struct counters *cnt)
{
	t->fd = -1;
	t->ops = &stream_ops;
	t->cnt = cnt;
	t->blocked = true;
	t->merge = true;

	if (pcap_init(&t->pcap))
		return -ENOMEM;
	t->stream = calloc(1, sizeof(*t->stream));
	t->rx_buf = malloc(RX_BUF);
	if (!t->stream || !t->rx_buf)
		return -ENOMEM;
	t->stream->keep = malloc(KEEP_MAX);
	if (!t->stream->keep)
		return -ENOMEM;
#ifdef PASSTPY_FAULTS
	return tap_faults_init(t);
#else
	return 0;
#endif
}

int tap_stream_attach(struct tap *t, int fd)
{
	int type, size = SOCK_BUF;
	socklen_t len = sizeof(type);

	if (t->fd >= 0)
		return -EBUSY;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	t->fd = fd;
	t->blocked = false;
	return 0;
}
