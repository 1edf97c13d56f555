/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pcap.c - Capture of what crosses the tap, classic pcap format */

#include "link/pcap.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/room.h"
#include "base/sys.h"

#define PCAP_CHUNK    (256U * 1024) /* of one write, and before a wake-up */
#define PCAP_PATIENCE 1000
#define PCAP_STACK    (256U * 1024)
#define PCAP_MAGIC    0xa1b23c4dU /* time stamps in nanoseconds */
#define PCAP_SNAPLEN  262144
#define PCAP_ETHERNET 1

/* draft-ietf-opsawg-pcap, in the byte order of the writer */
struct pcap_file_hdr {
	uint32_t magic;
	uint16_t major;
	uint16_t minor;
	uint32_t reserved[2];
	uint32_t snaplen;
	uint32_t linktype;
};

struct pcap_record_hdr {
	uint32_t seconds;
	uint32_t nanoseconds;
	uint32_t captured;
	uint32_t length;
};

static uint64_t pcap_tail(const struct pcap *p)
{
	return __atomic_load_n(&p->tail, __ATOMIC_ACQUIRE);
}

static size_t pcap_room(const struct pcap *p)
{
	return PCAP_RING - (size_t)(p->head - pcap_tail(p));
}

static void pcap_put(struct pcap *p, const void *data, size_t len)
{
	size_t at = p->head & (PCAP_RING - 1), first = MIN(len, PCAP_RING - at);

	memcpy(p->ring + at, data, first);
	memcpy(p->ring, (const uint8_t *)data + first, len - first);
	__atomic_store_n(&p->head, p->head + len, __ATOMIC_RELEASE);
}

/* pcap_write() - Write some of what is in the ring; the one place that waits
 *
 * Only here may the thread be cancelled: it holds nothing.
 */
static int pcap_write(struct pcap *p, uint64_t head)
{
	size_t at = p->tail & (PCAP_RING - 1);
	size_t len = MIN((size_t)(head - p->tail), PCAP_RING - at);
	struct pollfd wait = { .fd = p->fd, .events = POLLOUT };
	ssize_t n;
	int error;

	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	pthread_testcancel(); /* even if no call here comes to wait */
	n = sys_write(p->fd, p->ring + at, MIN(len, PCAP_CHUNK));
	error = n < 0 ? errno : ENOSPC;
	if (n < 0 && error == EAGAIN) /* somebody shares the description */
		sys_poll(&wait, 1, -1);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);

	if (n > 0)
		__atomic_store_n(&p->tail, p->tail + (size_t)n,
				 __ATOMIC_RELEASE);
	return n > 0 || error == EINTR || error == EAGAIN ? 0 : error;
}

static void *pcap_writer(void *arg)
{
	struct pcap *p = arg;
	bool stop = false;
	uint64_t head;
	int err = 0;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_mutex_lock(&p->lock);
	p->up = true;
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
	while (!err) {
		pthread_mutex_lock(&p->lock);
		while ((head = __atomic_load_n(&p->head, __ATOMIC_ACQUIRE)) ==
			       p->tail &&
		       !p->stop)
			pthread_cond_wait(&p->more, &p->lock);
		stop = p->stop;
		pthread_mutex_unlock(&p->lock);
		if (head == p->tail && stop)
			return NULL;
		while (head != p->tail && !err)
			err = pcap_write(p, head);
	}
	__atomic_store_n(&p->failed, err, __ATOMIC_RELEASE);
	return NULL;
}

static void *pcap_wait(void *unused)
{
	struct pollfd none = { .fd = -1 };

	while (sys_poll(&none, 1, -1) <= 0)
		pthread_testcancel(); /* no wait, and so no place for it */
	return unused;
}

/* pcap_thread() - Start a thread with a small stack that gets no signals */
static int pcap_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int err;

	sigfillset(&all);
	err = pthread_attr_init(&attr);
	if (err)
		return err;
	pthread_attr_setstacksize(&attr, PCAP_STACK);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = sys_pthread_create(thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return err;
}

/* pcap_can_cancel() - Cancel a thread that does nothing
 *
 * The C library sets a signal handler up, and loads a library, when this is done
 * for the first time; when a writer hangs in the end, neither may be possible,
 * and by the time it starts there may be no files.
 */
static int pcap_can_cancel(void)
{
	pthread_t idle;
	int err = pcap_thread(&idle, pcap_wait, NULL);

	if (err)
		return err;
	pthread_cancel(idle);
	pthread_join(idle, NULL);
	return 0;
}

int pcap_run(struct pcap *p)
{
	int err;

	if (p->fd < 0 || p->running)
		return 0;
	p->up = false;
	err = pcap_thread(&p->writer, pcap_writer, p);
	p->running = !err;
	if (err)
		return -err;
	/* What it asks the kernel for while it begins may be forbidden soon */
	pthread_mutex_lock(&p->lock);
	while (!p->up)
		pthread_cond_wait(&p->more, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* pcap_wake() - Tell the writer that there is more, or that this was all */
static void pcap_wake(struct pcap *p, bool stop)
{
	pthread_mutex_lock(&p->lock);
	p->stop = stop;
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
	p->woken = p->head;
}

/* pcap_join() - Wait for the writer's end, as long as it gets anywhere */
static void pcap_join(struct pcap *p)
{
	uint64_t seen;
	int err;

	do {
		struct timespec until;

		seen = pcap_tail(p);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += p->patience_ms / 1000;
		until.tv_nsec += p->patience_ms % 1000 * 1000000L;
		if (until.tv_nsec >= 1000000000L) {
			until.tv_nsec -= 1000000000L;
			until.tv_sec++;
		}
		err = pthread_timedjoin_np(p->writer, NULL, &until);
	} while (err == ETIMEDOUT && pcap_tail(p) != seen);
	if (err) {
		pthread_cancel(p->writer);
		pthread_join(p->writer, NULL);
	}
	p->running = false;
}

static void pcap_close(struct pcap *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	if (p->ring)
		munmap(p->ring, PCAP_RING);
	p->ring = NULL;
}

void pcap_init(struct pcap *p)
{
	memset(p, 0, sizeof(*p));
	p->fd = -1;
	p->patience_ms = PCAP_PATIENCE;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
}

void pcap_free(struct pcap *p)
{
	pcap_stop(p);
	pthread_cond_destroy(&p->more);
	pthread_mutex_destroy(&p->lock);
}

/* pcap_header() - Write the file's header now if it can be taken: most of what
 * can be wrong with a file is found out by the one who named it */
static int pcap_header(struct pcap *p)
{
	static const struct pcap_file_hdr hdr = {
		.magic = PCAP_MAGIC,
		.major = 2,
		.minor = 4,
		.snaplen = PCAP_SNAPLEN,
		.linktype = PCAP_ETHERNET,
	};
	struct pollfd ready = { .fd = p->fd, .events = POLLOUT };

	pcap_put(p, &hdr, sizeof(hdr));
	return sys_poll(&ready, 1, 0) == 1 ? pcap_write(p, p->head) : 0;
}

int pcap_start(struct pcap *p, int fd)
{
	pcap_stop(p);
	p->fd = fd;
	p->head = p->tail = p->woken = 0;
	p->untold = 0;
	p->failed = 0;
	p->stop = false;
	p->ring = room_reserve(PCAP_RING);
	if (p->ring == MAP_FAILED) {
		p->ring = NULL;
		p->error = ENOMEM;
	} else {
		p->error = pcap_can_cancel();
		if (!p->error)
			p->error = pcap_header(p);
	}
	if (p->error)
		pcap_close(p);
	return -p->error;
}

void pcap_stop(struct pcap *p)
{
	if (p->fd < 0)
		return;
	if (!p->running && p->head != p->tail)
		p->error = -pcap_run(p);
	if (p->running) {
		pcap_wake(p, true);
		pcap_join(p);
		p->error = p->failed;
	}
	pcap_close(p);
}

void pcap_flush(struct pcap *p)
{
	if (p->fd < 0)
		return;
	if (p->running)
		p->error = __atomic_load_n(&p->failed, __ATOMIC_ACQUIRE);
	else if (p->head != p->woken)
		p->error = -pcap_run(p);
	if (p->error) {
		if (p->running)
			pcap_join(p);
		pcap_close(p);
	} else if (p->head != p->woken) {
		pcap_wake(p, false);
	}
}

uint64_t pcap_lost(struct pcap *p)
{
	uint64_t lost = p->untold;

	if (!lost || (p->ring && pcap_room(p) < PCAP_RING / 2))
		return 0;
	p->untold = 0;
	return lost;
}

bool pcap_frame(struct pcap *p, const struct iovec *iov, unsigned n)
{
	struct pcap_record_hdr hdr;
	struct timespec ts;
	size_t len = 0;

	if (p->fd < 0)
		return true;
	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (sizeof(hdr) + len > pcap_room(p)) {
		p->untold++;
		return false;
	}

	clock_gettime(CLOCK_REALTIME, &ts);
	hdr.seconds = (uint32_t)ts.tv_sec;
	hdr.nanoseconds = (uint32_t)ts.tv_nsec;
	hdr.captured = hdr.length = (uint32_t)len;
	pcap_put(p, &hdr, sizeof(hdr));
	for (unsigned i = 0; i < n; i++)
		pcap_put(p, iov[i].iov_base, iov[i].iov_len);
	if (p->running && p->head - p->woken >= PCAP_CHUNK)
		pcap_wake(p, false);
	return true;
}
