/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pcap.c - Capture of what crosses the tap, classic pcap format */

#include "link/pcap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PCAP_BUF      (256 * 1024) /* several frames of 64 KiB */
#define PCAP_MAGIC    0xa1b23c4dU  /* time stamps in nanoseconds */
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

int pcap_init(struct pcap *p)
{
	p->fd = -1;
	p->error = 0;
	p->fill = 0;
	p->buf = malloc(PCAP_BUF);
	return p->buf ? 0 : -ENOMEM;
}

void pcap_free(struct pcap *p)
{
	pcap_stop(p);
	free(p->buf);
	p->buf = NULL;
}

int pcap_start(struct pcap *p, int fd)
{
	static const struct pcap_file_hdr hdr = {
		.magic = PCAP_MAGIC,
		.major = 2,
		.minor = 4,
		.snaplen = PCAP_SNAPLEN,
		.linktype = PCAP_ETHERNET,
	};

	pcap_stop(p);
	p->fd = fd;
	p->error = 0;
	memcpy(p->buf, &hdr, sizeof(hdr));
	p->fill = sizeof(hdr);
	pcap_flush(p);
	return -p->error;
}

static void pcap_close(struct pcap *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	p->fill = 0;
}

void pcap_stop(struct pcap *p)
{
	pcap_flush(p);
	pcap_close(p);
}

void pcap_flush(struct pcap *p)
{
	uint32_t done = 0;

	while (p->fd >= 0 && done < p->fill) {
		ssize_t n = write(p->fd, p->buf + done, p->fill - done);

		if (n > 0) {
			done += (uint32_t)n;
		} else if (n == 0 || errno != EINTR) {
			p->error = n ? errno : ENOSPC;
			pcap_close(p);
		}
	}
	p->fill = 0;
}

void pcap_frame(struct pcap *p, const struct iovec *iov, unsigned n)
{
	struct pcap_record_hdr hdr;
	struct timespec ts;
	size_t len = 0;

	if (p->fd < 0)
		return;
	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (sizeof(hdr) + len > PCAP_BUF)
		return;
	if (p->fill + sizeof(hdr) + len > PCAP_BUF) {
		pcap_flush(p);
		if (p->fd < 0)
			return;
	}

	clock_gettime(CLOCK_REALTIME, &ts);
	hdr.seconds = (uint32_t)ts.tv_sec;
	hdr.nanoseconds = (uint32_t)ts.tv_nsec;
	hdr.captured = hdr.length = (uint32_t)len;
	memcpy(p->buf + p->fill, &hdr, sizeof(hdr));
	p->fill += sizeof(hdr);
	for (unsigned i = 0; i < n; i++) {
		memcpy(p->buf + p->fill, iov[i].iov_base, iov[i].iov_len);
		p->fill += (uint32_t)iov[i].iov_len;
	}
}
