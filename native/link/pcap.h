/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pcap.h - Capture of what crosses the tap, classic pcap format
 *
 * Buffered; a failing write ends the capture, which the owner is told once.
 * Super-segments are captured whole, as on any NIC that segments in hardware.
 */
#ifndef PASSTPY_LINK_PCAP_H
#define PASSTPY_LINK_PCAP_H

#include <stdint.h>
#include <sys/uio.h>

/** struct pcap
 * @fd:		File, or -1: off; owned
 * @error:	errno of the write that ended the capture, or 0
 * @fill:	Bytes in @buf
 * @buf:	Write buffer, PCAP_BUF bytes, allocated by pcap_init()
 */
struct pcap {
	int fd;
	int error;
	uint32_t fill;
	uint8_t *buf;
};

int pcap_init(struct pcap *p); /* off; 0 or -ENOMEM */
void pcap_free(struct pcap *p);
int pcap_start(struct pcap *p, int fd); /* writes the file header */
void pcap_stop(struct pcap *p);

/* pcap_frame() - Append a frame; wall-clock time is read here, if on */
void pcap_frame(struct pcap *p, const struct iovec *iov, unsigned n);
void pcap_flush(struct pcap *p);

#endif /* PASSTPY_LINK_PCAP_H */
