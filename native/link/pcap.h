/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pcap.h - Capture of what crosses the tap, classic pcap format
 *
 * Frames are copied into a ring, and a thread writes them: a slow disk or a
 * pipe that nobody reads holds up no packet. A frame that finds no room is lost
 * and counted. A failing write ends the capture, which the owner is told once.
 * Super-segments are captured whole, as on any NIC that segments in hardware.
 */
#ifndef PASSTPY_LINK_PCAP_H
#define PASSTPY_LINK_PCAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define PCAP_RING (16U << 20) /* a power of two; touched as far as needed */

/** struct pcap
 * @fd:		File, or -1: off; owned
 * @error:	errno of the write that ended the capture, or 0
 * @untold:	Frames without room that pcap_lost() has not told of yet
 * @patience_ms: How long pcap_stop() waits for a reader who takes nothing
 * @ring:	PCAP_RING bytes, from pcap_start() on
 * @head:	Bytes ever put in; ours
 * @tail:	Bytes ever written out; the writer's
 * @woken:	@head when the writer was last told
 * @failed:	errno of the writer, which has ended then
 * @running:	There is a @writer
 * @up:		It runs code of ours; under @lock
 * @stop:	The writer shall end once the ring is empty; under @lock
 */
struct pcap {
	int fd;
	int error;
	uint64_t untold;
	int patience_ms;

	uint8_t *ring;
	uint64_t head;
	uint64_t tail;
	uint64_t woken;
	int failed;

	bool running;
	bool up;
	bool stop;
	pthread_t writer;
	pthread_mutex_t lock;
	pthread_cond_t more;
};

void pcap_init(struct pcap *p); /* off */
void pcap_free(struct pcap *p);
int pcap_start(struct pcap *p, int fd); /* 0 or -errno */
void pcap_stop(struct pcap *p);

/* pcap_frame() - Append a frame, if on; wall-clock time is read here
 *
 * Return: false if it was lost for want of room
 */
bool pcap_frame(struct pcap *p, const struct iovec *iov, unsigned n);

/* pcap_run() - Start the writer, if on: a thread has privileges of its own, so
 * that is for a time when we have given up ours, and may still start one
 *
 * Return: 0 or -errno
 */
int pcap_run(struct pcap *p);

/* pcap_flush() - Have the writer write, which is started if need be */
void pcap_flush(struct pcap *p);

/* pcap_lost() - How many frames were lost since there was last room, if there
 * is again; 0: none, or no room yet */
uint64_t pcap_lost(struct pcap *p);

#endif /* PASSTPY_LINK_PCAP_H */
