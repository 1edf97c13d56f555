/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A capture, its ring and its writer, whatever the reader does */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "link/pcap.h"
#include "test.h"

static uint8_t buf[65536];
static struct pcap pcap;

#define LEN  60000			     /* bytes of a frame */
#define ROOM ((PCAP_RING - 24) / (LEN + 16)) /* frames behind the header */

/* fill() - Write into a pipe until nothing more goes in; how much went */
static uint64_t fill(int fd)
{
	uint64_t sum = 0;
	ssize_t n;

	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while ((n = write(fd, buf, sizeof(buf))) > 0)
		sum += (uint64_t)n;
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
	return sum;
}

/* capture_nobody_reads() - Fill a pipe, and the ring behind it: whenever the
 * writer runs, it gets rid of nothing
 *
 * Return: bytes that are in the pipe
 */
static uint64_t capture_nobody_reads(int *ret_reader)
{
	struct iovec iov = { buf, LEN };
	unsigned kept = 0;
	uint64_t filled;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	filled = fill(ends[1]);
	pcap_init(&pcap);
	CHECK_EQ(pcap_start(&pcap, ends[1]), 0);
	while (pcap_frame(&pcap, &iov, 1)) {
		pcap_flush(&pcap);
		kept++;
	}
	CHECK_EQ(kept, ROOM);
	*ret_reader = ends[0];
	return filled;
}

static void capture_nobody_reads_loses_frames_and_time_at_the_end_only(void)
{
	struct iovec iov = { buf, LEN };
	int reader;

	(void)capture_nobody_reads(&reader);
	CHECK(!pcap_frame(&pcap, &iov, 1));
	CHECK_EQ(pcap_lost(&pcap), 0); /* there is no room yet */
	pcap.patience_ms = 10;
	pcap_free(&pcap); /* with a writer that is stuck */
	close(reader);
}

static void capture_that_is_read_again_tells_what_is_missing(void)
{
	static uint8_t bin[1 << 20];
	uint64_t lost, due, sum = 0;
	ssize_t n;
	int reader;

	due = capture_nobody_reads(&reader) + 24 + (uint64_t)ROOM * (LEN + 16);
	while (!(lost = pcap_lost(&pcap))) {
		n = read(reader, bin, sizeof(bin));
		CHECK(n > 0);
		sum += (uint64_t)n;
	}
	CHECK_EQ(lost, 1);
	CHECK_EQ(pcap_lost(&pcap), 0);
	while (sum < due) {
		n = read(reader, bin, sizeof(bin));
		CHECK(n > 0);
		sum += (uint64_t)n;
	}
	pcap_free(&pcap);
	CHECK_EQ(sum, due);
	CHECK_EQ(read(reader, bin, sizeof(bin)), 0);
	close(reader);
}

static void capture_whose_reader_leaves_ends(void)
{
	struct iovec iov = { buf, 60 };
	int ends[2];

	CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	CHECK_EQ(pipe(ends), 0);
	pcap_init(&pcap);
	CHECK_EQ(pcap_start(&pcap, ends[1]), 0);
	close(ends[0]);
	while (pcap.fd >= 0) {
		pcap_frame(&pcap, &iov, 1);
		pcap_flush(&pcap);
	}
	CHECK_EQ(pcap.error, EPIPE);
	pcap_free(&pcap);
}

int main(void)
{
	RUN(capture_nobody_reads_loses_frames_and_time_at_the_end_only);
	RUN(capture_that_is_read_again_tells_what_is_missing);
	RUN(capture_whose_reader_leaves_ends);
	return 0;
}
