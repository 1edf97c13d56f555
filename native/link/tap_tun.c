/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_tun.c - Backend for a tun device: one read or write per frame
 *
 * With a virtio-net header the kernel neither segments nor checksums between
 * guest and us; without it, or for a kind of super-segment it does not know,
 * link/offload.c does it. A SOCK_SEQPACKET socket behaves the same, which is
 * what tests use.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/sys.h"
#include "link/backends.h"
#include "link/offload.h"
#include "link/sieve.h"

/* Room behind the last frame: IPv6 does not count its header in 64 KiB */
#define RX_SLOT (TAP_FRAME_MAX + 40 + sizeof(struct vnet_hdr))
#define RX_PAD \
	(TAP_RX_ALIGN + sizeof(struct vnet_hdr)) /* on top of each frame */
#define RX_BUF (TAP_BATCH_BYTES + TAP_BATCH * RX_PAD + RX_SLOT + TAP_RX_ALIGN)

/* tun_is_gone() - Does this errno mean that no frame will ever come again? */
static bool tun_is_gone(int err)
{
	return err == EIO || err == EBADFD || err == ENODEV ||
	       err == ECONNRESET || err == ENOTCONN || err == EBADF;
}

/**
 * tun_read_one() - Read one frame
 * @buf:	Where it goes, virtio-net header included
 *
 * Return: bytes read, 0 when nothing is there, -errno when the tap is gone
 */
static ssize_t tun_read_one(struct tap *t, uint8_t *buf)
{
	ssize_t n;

	do
		n = sys_read(t->fd, buf, RX_SLOT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (!n)
		return -ENOTCONN; /* the other end of a socket closed */
	return tun_is_gone(errno) ? -errno : 0;
}

static int tun_read(struct tap *t)
{
	size_t head = t->vnet ? sizeof(struct vnet_hdr) : 0;
	size_t pos = 0, bytes = 0;
	int frames = 0;

	t->drained = false;
	while (frames < TAP_BATCH && bytes < TAP_BATCH_BYTES) {
		struct tap_rx *rx = &t->rx[frames];
		uint8_t *buf = t->rx_buf + pos;
		ssize_t n = tun_read_one(t, buf);

		if (n < 0 && !frames)
			return (int)n;
		if (n <= 0) {
			t->drained = true;
			break;
		}
		if ((size_t)n < head) {
			count(t->cnt, CNT_DROP_SHORT);
			continue;
		}
		if (head)
			memcpy(&rx->vh, buf, sizeof(rx->vh));
		rx->data = buf + head;
		rx->len = (uint32_t)((size_t)n - head);
		pos = (pos + (size_t)n + TAP_RX_ALIGN - 1) &
		      ~(size_t)(TAP_RX_ALIGN - 1);
		bytes += rx->len;
		frames++;
	}
	return frames;
}

static int tun_writev(struct tap *t, const struct iovec *iov, unsigned n)
{
	ssize_t rc;

	do
		rc = sys_writev(t->fd, iov, (int)n);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

/* tun_emit() - Write a frame that needs no offload any more */
static int tun_emit(void *arg, const struct frame_out *f,
		    const struct iovec *payload, unsigned n)
{
	static const struct vnet_hdr none;
	struct iovec iov[2 + TAP_IOV_MAX];
	struct tap *t = arg;
	unsigned k = 0;

	if (t->vnet)
		iov[k++] = (struct iovec){ (void *)&none, sizeof(none) };
	iov[k++] = (struct iovec){ (void *)f->hdr, f->hdr_len };
	for (unsigned i = 0; i < n; i++)
		iov[k++] = payload[i];
	return tun_writev(t, iov, k);
}

/* tun_takes() - Can the kernel do what this frame leaves to be done? */
static bool tun_takes(const struct tap *t, const struct frame_out *f)
{
	if (!t->vnet)
		return false;
	switch (f->vh.gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_NONE:
		return true;
	case VNET_GSO_TCPV4:
		return t->tso4;
	case VNET_GSO_TCPV6:
		return t->tso6;
	case VNET_GSO_UDP_L4:
		return t->uso;
	default:
		return false;
	}
}

static int tun_write(struct tap *t, struct frame_out *f,
		     const struct iovec *payload, unsigned n, uint32_t len)
{
	struct iovec iov[2 + TAP_IOV_MAX];

	if (!tun_takes(t, f))
		return offload_emit(f, payload, n, len, tun_emit, t);

	iov[0] = (struct iovec){ &f->vh, sizeof(f->vh) };
	iov[1] = (struct iovec){ f->hdr, f->hdr_len };
	for (unsigned i = 0; i < n; i++)
		iov[2 + i] = payload[i];
	return tun_writev(t, iov, 2 + n);
}

/* tun_flush() - Nothing is kept: the kernel has no batched write for tun */
static void tun_flush(struct tap *t)
{
	(void)t;
}

static int tun_init(struct tap *t, const struct tap_env *env)
{
	const uint32_t uso = TAP_OFFLOAD_USO4 | TAP_OFFLOAD_USO6;
	uint32_t granted = env->vnet ? env->offloads : 0;

	t->vnet = env->vnet;
	t->tso4 = granted & TAP_OFFLOAD_TSO4;
	t->tso6 = granted & TAP_OFFLOAD_TSO6;
	t->uso = (granted & uso) == uso;
	return 0;
}

/* tun_attach() - A tap that blocked would stop the whole program */
static int tun_attach(struct tap *t, int fd)
{
	int flags = sys_fcntl(fd, F_GETFL);
	int err;

	if (flags < 0 || sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	err = tap_fd_add(t, EPOLL_TAP, fd);
	if (!err)
		t->fd = fd;
	return err;
}

/* tun_sieve() - The kernel copies the program, and replaces the one before */
static int tun_sieve(struct tap *t, uint32_t kinds)
{
	struct sock_filter prog[SIEVE_PROG_MAX];
	struct sock_fprog fprog = { .filter = prog };

	fprog.len = (unsigned short)sieve_program(prog, kinds);
	if (sys_ioctl(t->fd, kinds ? TUNATTACHFILTER : TUNDETACHFILTER, &fprog))
		return -errno;
	return 0;
}

const struct tap_ops tap_tun_ops = {
	.name = "tun",
	.mtu_max = TAP_FRAME_MAX - ETH_HLEN_,
	.rx_size = RX_BUF,
	.init = tun_init,
	.read = tun_read,
	.write = tun_write,
	.flush = tun_flush,
	.attach = tun_attach,
	.sieve = tun_sieve,
};
